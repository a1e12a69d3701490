"""Deep research: plain text for the desktop app, JSON or server-sent events on request."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from flask import Response, request

from app.blueprints.torbiz.api import api
from app.blueprints.torbiz.inference_schemas import PageQuery
from app.blueprints.torbiz.research_schemas import (
    ClientQuery,
    ResearchBody,
    ResearchObject,
    ResearchPatch,
    SourceObject,
)
from app.core.domain.errors import Forbidden
from app.core.domain.research import ResearchState
from app.core.services import research
from app.core.services.research import Asked, ResearchView
from app.core.stream import STEP, TEXT
from app.web import live, live_research
from app.web.auth import current_identity
from app.web.context import settings
from app.web.files import lasting_file_url
from app.web.live_research import FORM_BYTES, LiveResearch
from app.web.sse import sse_response, stream_response
from app.web.transaction import reading
from app.web.validation import json_response

SSE, JSON, PLAIN = "text/event-stream", "application/json", "text/plain"
_FIRST_TEXT = frozenset({TEXT})
_FIRST_NEWS = frozenset({TEXT, STEP})


def _object(found: ResearchView) -> ResearchObject:
    return ResearchObject(
        id=found.id,
        client=found.account_id,
        client_username=found.username,
        question_text=found.question_text,
        answer_text=found.answer_text if found.is_over else None,
        image=lasting_file_url(found.image_file) if found.image_file else None,
        created_at=found.created_at.isoformat().replace("+00:00", "Z"),
        state=found.state,
        error=found.error,
        sources=[
            SourceObject(number=s.number, title=s.title, url=s.url) for s in found.sources
        ],
    )


def _list(account_id: int | None, query: PageQuery) -> Response:
    found, total = research.list_jobs(
        reading(), current_identity(), account_id=account_id,
        page=query.page, page_size=query.page_size,
    )  # fmt: skip
    response = json_response([_object(one).model_dump() for one in found])
    response.headers["X-Total-Count"] = str(total)
    return response


@api.route("GET", "/deepresearch/", query=PageQuery, answer=list[ResearchObject])
def list_research(query: PageQuery) -> Response:
    """The caller's research, newest first; an admin's list holds everybody's."""
    return _list(None, query)


@api.route("GET", "/deepresearch/by_client/", query=ClientQuery, answer=list[ResearchObject])
def list_research_of_client(query: ClientQuery) -> Response:
    """The research of one client: one's own, or for an admin anybody's."""
    _check_client(query.client)
    return _list(query.client or current_identity().account_id, query)


@api.route(
    "POST", "/deepresearch/", body=ResearchBody, status=201, media_type=PLAIN,
    answer=ResearchObject, form_bytes=FORM_BYTES, files=("image",), also_answers=(SSE, JSON),
)  # fmt: skip
def create_research(body: ResearchBody) -> Response:
    """Research a question and stream the report as it is written.

    It goes on whatever the connection does; `X-DeepResearch-Id` says where to find it.
    """
    _check_client(body.client)
    asked = live_research.ask(
        current_identity(), question_text=body.question_text,
        image_file=live_research.store_image(),
    )  # fmt: skip
    return _answer(asked, 201)


@api.route("GET", "/deepresearch/<int:research_id>/", answer=ResearchObject)
def get_research(research_id: int) -> ResearchObject:
    """One question with its report, once there is one."""
    return _object(_get(research_id))


@api.route(
    "PUT", "/deepresearch/<int:research_id>/", body=ResearchBody, media_type=PLAIN,
    answer=ResearchObject, form_bytes=FORM_BYTES, files=("image",), also_answers=(SSE, JSON),
)  # fmt: skip
def replace_research(research_id: int, body: ResearchBody) -> Response:
    """Replace a question. A new text or image is researched; else the object comes back."""
    return _change(research_id, body)


@api.route(
    "PATCH", "/deepresearch/<int:research_id>/", body=ResearchPatch, media_type=PLAIN,
    answer=ResearchObject, form_bytes=FORM_BYTES, files=("image",), also_answers=(SSE, JSON),
)  # fmt: skip
def change_research(research_id: int, body: ResearchPatch) -> Response:
    """Change a question. A new text or image is researched; else the object comes back."""
    return _change(research_id, body)


@api.route("DELETE", "/deepresearch/<int:research_id>/", status=204)
def delete_research(research_id: int) -> None:
    """Forget a question, and stop researching it."""
    live_research.delete(_get(research_id))


@api.route(
    "POST", "/deepresearch/<int:research_id>/regenerate/", body=ResearchPatch, status=201,
    media_type=PLAIN, answer=ResearchObject, form_bytes=FORM_BYTES, also_answers=(SSE, JSON),
)  # fmt: skip
def regenerate_research(research_id: int, body: ResearchPatch) -> Response:
    """Research a question anew. An empty body is fine."""
    _check_client(body.client)
    job = _get(research_id)
    asked = live_research.ask_anew(
        current_identity(), job, question_text=body.question_text or job.question_text
    )
    return _answer(asked, 201)


def _check_client(client: int | None) -> None:
    if client is not None and not current_identity().may_act_for(client):
        raise Forbidden("`client` must be your own id.")


def _get(research_id: int) -> ResearchView:
    return research.get_job(reading(), current_identity(), research_id)


def _change(research_id: int, body: ResearchBody) -> Response:
    _check_client(body.client)
    job = _get(research_id)
    image_file = live_research.store_image()
    question = body.question_text or job.question_text
    if image_file is None and question == job.question_text:
        return json_response(_object(job).model_dump())
    asked = live_research.ask_anew(
        current_identity(), job, question_text=question, image_file=image_file
    )
    return _answer(asked, 200)


# ---- The three forms of an answer ------------------------------------------------


def _answer(asked: Asked, status: int) -> Response:
    form = _wanted_form()
    job = live_research.follow_new(current_identity(), asked)
    if form == JSON:
        response = _wait(job, asked, status)
    elif form == SSE:
        job.wait_until(_FIRST_NEWS, settings().sync_wait_seconds)
        response = sse_response(_frames(job, asked.job_id), status=status)
    else:
        job.wait_until(_FIRST_TEXT, settings().sync_wait_seconds)
        response = stream_response(_pieces(job), PLAIN, status=status)
    response.call_on_close(job.close)
    response.headers["X-DeepResearch-Id"] = str(asked.job_id)
    return response


def _wanted_form() -> str:
    """Another form only for who does not take plain text: axios sends `*/*` along."""
    accept = request.accept_mimetypes
    if not accept or accept[PLAIN]:
        return PLAIN
    return accept.best_match([SSE, JSON], default=PLAIN) or PLAIN


def _pieces(job: LiveResearch) -> Iterator[bytes]:
    """The report's text and nothing else. A failure is said in the text: there is no frame."""
    for event in job.events():
        if event.kind == TEXT:
            yield event.value.encode()
        elif event.is_end and event.value["state"] != ResearchState.SUCCEEDED:
            yield f"\n\n*{_error_of(event.value)}*\n".encode()


def _frames(job: LiveResearch, research_id: int) -> Iterator[bytes]:
    """`{"step", "token", "done"}` frames."""
    for speaker, event in live_research.labelled(job.events()):
        if event.is_end:
            yield _last_frame(event.value, research_id)
        elif (data := live_research.event_json(speaker, event)) is not None:
            yield f"data: {data}\n\n".encode()


def _last_frame(value: dict[str, Any], research_id: int) -> bytes:
    last = {
        "step": "", "token": "", "done": True, "id": research_id,
        "reason": value["finish_reason"],
    }  # fmt: skip
    if value["state"] != ResearchState.SUCCEEDED:
        last["error"] = _error_of(value)
    return f"data: {json.dumps(last, ensure_ascii=False)}\n\n".encode()


def _error_of(value: dict[str, Any]) -> str:
    return value.get("error") or "This research was stopped: it was asked anew or deleted."


def _wait(job: LiveResearch, asked: Asked, status: int) -> Response:
    """The object with its report, or without one after SYNC_WAIT_S: it goes on being made."""
    deadline = time.monotonic() + settings().sync_wait_seconds
    try:
        while (left := deadline - time.monotonic()) > 0:
            event = job.poll(left)
            if event is not None and event.is_end:
                if event.value["state"] != ResearchState.SUCCEEDED:
                    raise live.error_of_end(event.value)
                break
    finally:
        job.close()
    return json_response(_object(_get(asked.job_id)).model_dump(), status)
