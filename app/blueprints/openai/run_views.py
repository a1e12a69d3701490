"""A run's own page and event stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flask import Response, current_app, request

from app.blueprints.openai import schemas
from app.blueprints.openai.api import api
from app.core.domain.errors import NotFound
from app.core.domain.runs import RunState
from app.core.ids import uid_from_object_id
from app.core.services import runs, usage
from app.web import live
from app.web.auth import current_identity
from app.web.context import redis_client
from app.web.sse import frame, last_event_id, sse_response
from app.web.transaction import reading, release

if TYPE_CHECKING:
    from app.core.models import Run


def _uid(run_id: str) -> str:
    """The uid in `<uid>`, `run_…`, `chatcmpl-…` or `cmpl-…`. Raises NotFound."""
    uid = uid_from_object_id(run_id.rpartition("-")[2].rpartition("_")[2])
    if uid is None:
        raise NotFound("Run not found.")
    return uid


@api.route("GET", "/v1/runs/<run_id>", answer=schemas.RunObject)
def get_run(run_id: str) -> schemas.RunObject:
    """One run of the caller's, with what it used."""
    return _run_object(runs.get_run(reading(), current_identity(), _uid(run_id)))


@api.route("POST", "/v1/runs/<run_id>/cancel", answer=schemas.RunObject)
def cancel_run(run_id: str) -> schemas.RunObject:
    """Cancel a run: at once when it waits, within a second when it runs."""
    run = runs.get_run(reading(), current_identity(), _uid(run_id))
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    live.cancel(app, redis_client(), run.id, run.uid)
    return _run_object(runs.get_run_by_id(reading(), run.id))


@api.route("GET", "/v1/runs/<run_id>/events", media_type="text/event-stream")
def stream_run_events(run_id: str) -> Response:
    """The run's events from `Last-Event-ID` on: `text`, `reasoning`, `tools`, then `end`."""
    identity = current_identity()
    run = runs.get_run(reading(), identity, _uid(run_id))
    after = last_event_id(request.headers.get("Last-Event-ID"))
    reader = live.follow(identity, run.uid, run.id, after=after)
    release()
    return sse_response(_frames(reader))


def _frames(reader: live.LiveRun) -> Iterator[bytes]:
    for event in reader.events():
        data = json.dumps(event.value, ensure_ascii=False)
        yield frame(data, number=event.last, event=event.kind)


def _run_object(run: Run) -> schemas.RunObject:
    # A run under way may still remember why it left its last node.
    is_over = RunState(run.state).is_final
    failed = (
        {"code": run.error_code, "message": run.error} if is_over and run.error_code else None
    )
    return schemas.RunObject(
        id=f"run_{run.uid}",
        model=run.model_name,
        state=run.state,
        created=int(run.created_at.timestamp()),
        finish_reason=run.finish_reason,
        error=failed,
        node=str(run.node_id) if run.node_id else None,
        attempts=run.attempt,
        usage={"input_tokens": run.input_tokens, "output_tokens": run.output_tokens},
        first_token_ms=usage.milliseconds(run.created_at, run.first_chunk_at),
        duration_ms=usage.milliseconds(run.created_at, run.finished_at),
        answer=run.answer_text,
    )
