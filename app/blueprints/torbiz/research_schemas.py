"""What torbiz's clients send and get for deep research."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.blueprints.torbiz.inference_schemas import Id, PageQuery

Question = Annotated[str, StringConstraints(min_length=1, max_length=100_000, pattern=r"\S")]


class ResearchBody(BaseModel):
    """POST and PUT of a question. The image comes as a file of a multipart form."""

    model_config = ConfigDict(extra="ignore")

    client: Id | None = None
    question_text: Question


class ResearchPatch(ResearchBody):
    """PATCH and regenerate: what is absent stays."""

    question_text: Question | None = None  # type: ignore[assignment]


class ClientQuery(PageQuery):
    """`?client=<id>`: one's own id, or for an admin anybody's."""

    client: Id | None = None


class SourceObject(BaseModel):
    """A source; the report cites it by its number."""

    number: int
    title: str
    url: str


class ResearchObject(BaseModel):
    """A question and its report. `answer_text` is null until the research is over."""

    id: int
    client: int
    client_username: str
    question_text: str
    answer_text: str | None
    image: str | None = Field(json_schema_extra={"format": "uri"})
    created_at: str
    state: str
    error: str | None
    sources: list[SourceObject]
