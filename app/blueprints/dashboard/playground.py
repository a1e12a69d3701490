"""The playground: talk to a model and see how fast it answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Literal

from flask import Response, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, Field

from app.blueprints.dashboard.pages import blueprint, page
from app.blueprints.dashboard.runs import event_frames
from app.core.clock import utc_now
from app.core.domain.runs import RunRequest, Sampling
from app.core.services import models
from app.web import live
from app.web.auth import current_identity
from app.web.context import base_url, settings
from app.web.sse import frame, sse_response
from app.web.transaction import reading
from app.web.validation import parse_body

SUGGESTIONS = (
    "What can you help me with?",
    "Write a haiku about weaving",
    "Explain how a GPU runs a language model",
)


class Turn(BaseModel):
    """One message of the conversation."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=400_000)


class Question(BaseModel):
    """What the playground sends."""

    model: str = Field(min_length=1, max_length=200)
    messages: list[Turn] = Field(min_length=1, max_length=500)
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1, le=1_000_000)


@blueprint.get("/playground")
def show_playground() -> ResponseReturnValue:
    """An empty conversation."""
    found = models.list_available(
        reading(), now=utc_now(), offline_after_seconds=settings().offline_after_seconds
    )
    return page(
        "playground",
        models=[(model.name, model.name) for model in found],
        model=request.args.get("model", ""),
        suggestions=SUGGESTIONS,
        api_url=base_url(),
    )


@blueprint.post("/playground/stream")
def stream_playground() -> Response:
    """Answer the conversation as a stream; the run ends when its reader leaves."""
    asked = parse_body(Question)
    wanted = RunRequest(
        model=asked.model,
        messages=tuple(turn.model_dump() for turn in asked.messages),
        sampling=Sampling(max_tokens=asked.max_tokens, temperature=asked.temperature),
    )
    run = live.start_run(current_identity(), wanted, door="dashboard", is_attached=True)
    run.wait_first()
    return sse_response(_frames(run))


def _frames(run: live.LiveRun) -> Iterator[bytes]:
    yield frame(json.dumps({"id": run.uid}), event="run")
    yield from event_frames(run)
