"""What torbiz's clients send and get for inference."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _number(value: Any) -> Any:
    """Ids also come as decimal strings."""
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value.strip())
    return value


Id = Annotated[int, BeforeValidator(_number)]
Text = Annotated[str, Field(min_length=1, max_length=1_000_000)]
ModelName = Annotated[str, Field(min_length=1, max_length=200)]


class InferenceBody(BaseModel):
    """POST and PUT of a question."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=False)

    client: Id | None = None
    question_text: Text
    desired_model: ModelName
    answer_text: str | None = Field(None, max_length=4_000_000)
    max_tokens: int | None = Field(None, ge=1, le=1_000_000)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)


class InferencePatch(InferenceBody):
    """PATCH of a question: only what changes."""

    question_text: Text | None = None  # type: ignore[assignment]
    desired_model: ModelName | None = None  # type: ignore[assignment]


class PageQuery(BaseModel):
    """`?page=&page_size=` of torbiz's lists."""

    page: int = Field(1, ge=1, le=1_000_000)
    page_size: int = Field(100, ge=1, le=500)


class InferenceObject(BaseModel):
    """A question and its answer."""

    id: int
    client: int
    client_username: str
    question_text: str
    answer_text: str | None
    desired_model: str
    source: str
    created_at: str
