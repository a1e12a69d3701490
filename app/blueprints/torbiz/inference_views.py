"""Questions: stored, answered whole, or answered as a stream."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator

from flask import Response

from app.blueprints.torbiz.api import api
from app.blueprints.torbiz.inference_schemas import (
    InferenceBody,
    InferenceObject,
    InferencePatch,
    PageQuery,
)
from app.core.clock import utc_now
from app.core.domain.errors import Forbidden
from app.core.domain.runs import RunState, Sampling
from app.core.services import inferences
from app.core.services.inferences import InferenceView
from app.core.stream import TEXT, Event
from app.web import live
from app.web.auth import current_identity
from app.web.context import settings
from app.web.live import LiveRun
from app.web.transaction import reading, unit_of_work
from app.web.validation import json_response

_quote = json.encoder.encode_basestring
_REASONS = {"stop", "length", "error", "cancelled"}


def _object(found: InferenceView) -> InferenceObject:
    return InferenceObject(
        id=found.id,
        client=found.account_id,
        client_username=found.username,
        question_text=found.question_text,
        answer_text=found.answer_text,
        desired_model=found.desired_model,
        source=found.source,
        created_at=found.created_at.isoformat().replace("+00:00", "Z"),
    )


@api.route("GET", "/inference/", query=PageQuery, answer=list[InferenceObject])
def list_inferences(query: PageQuery) -> Response:
    """The caller's questions, newest first; an admin's list holds everybody's."""
    found, total = inferences.list_inferences(
        reading(), current_identity(), page=query.page, page_size=query.page_size
    )
    response = json_response([_object(one).model_dump() for one in found])
    response.headers["X-Total-Count"] = str(total)
    return response


@api.route("POST", "/inference/", body=InferenceBody, answer=InferenceObject, status=201)
def create_inference(body: InferenceBody) -> InferenceObject:
    """Ask and wait for the answer; or keep a question that was answered elsewhere."""
    _check_client(body)
    if body.answer_text:
        with unit_of_work() as session:
            inference_id = inferences.import_inference(
                session, current_identity(), question_text=body.question_text,
                desired_model=body.desired_model, answer_text=body.answer_text, now=utc_now(),
            )  # fmt: skip
        return _get(inference_id)
    return _ask_and_wait(body)


@api.route("GET", "/inference/<int:inference_id>/", answer=InferenceObject)
def get_inference(inference_id: int) -> InferenceObject:
    """One question with its answer, once there is one."""
    return _get(inference_id)


@api.route("PUT", "/inference/<int:inference_id>/", body=InferenceBody, answer=InferenceObject)
def replace_inference(inference_id: int, body: InferenceBody) -> InferenceObject:
    """Replace a question: it is asked again, unless it brings its answer."""
    return _change(inference_id, body, body.question_text, body.desired_model)


@api.route(
    "PATCH", "/inference/<int:inference_id>/", body=InferencePatch, answer=InferenceObject
)
def change_inference(inference_id: int, body: InferencePatch) -> InferenceObject:
    """Change a question. A new text or model asks again; an answer alone is stored."""
    return _change(inference_id, body, body.question_text, body.desired_model)


@api.route("DELETE", "/inference/<int:inference_id>/", status=204)
def delete_inference(inference_id: int) -> None:
    """Forget a question."""
    _get(inference_id)
    with unit_of_work() as session:
        inferences.delete_inference(session, inference_id)


@api.route(
    "POST", "/inference/stream/", body=InferenceBody, status=201, media_type="text/event-stream"
)
def stream_inference(body: InferenceBody) -> Response:
    """Ask, and stream the answer token by token. Leaving cancels it."""
    _check_client(body)
    inference_id, run = _ask(body, is_attached=True)
    run.wait_first()
    return run.stream(lambda events: _frames(events, inference_id), _text_frame, status=201)


def _text_frame(text: str) -> bytes:
    return f'data: {{"token":{_quote(text)},"done":false}}\n\n'.encode()


def _frames(events: Iterator[Event], inference_id: int) -> Generator[bytes, None, None]:
    """`{"token", "done"}` frames. No ids and no comments: the desktop app would print them."""
    for event in events:
        if event.kind == TEXT:
            yield _text_frame(event.value)
        elif event.is_end:
            yield _last_frame(event.value, inference_id)


def _last_frame(value: dict[str, object], inference_id: int) -> bytes:
    reason = str(value.get("finish_reason") or "stop")
    last: dict[str, object] = {"token": "", "done": True, "id": inference_id}
    last["reason"] = reason if reason in _REASONS else "stop"
    if value["state"] != RunState.SUCCEEDED:
        last["error"] = value.get("error") or "The run was cancelled."
    return f"data: {json.dumps(last, ensure_ascii=False)}\n\n".encode()


def _check_client(body: InferenceBody) -> None:
    if body.client is not None and not current_identity().may_act_for(body.client):
        raise Forbidden("`client` must be your own id.")


def _get(inference_id: int) -> InferenceObject:
    return _object(inferences.get_inference(reading(), current_identity(), inference_id))


def _ask(
    body: InferenceBody, *, is_attached: bool, inference_id: int | None = None
) -> tuple[int, LiveRun]:
    caller = current_identity()
    sampling = Sampling(
        max_tokens=body.max_tokens, temperature=body.temperature, top_p=body.top_p
    )

    wanted = inferences.as_request(body.question_text, body.desired_model, sampling)
    run, kept = live.start_run_with(
        caller, wanted,
        lambda connection, run_id: inferences.keep_question(
            connection, caller, run_id, question_text=body.question_text,
            desired_model=body.desired_model, now=utc_now(), inference_id=inference_id,
        ),
        door="torbiz", is_attached=is_attached,
    )  # fmt: skip
    return kept, run


def _ask_and_wait(body: InferenceBody, inference_id: int | None = None) -> InferenceObject:
    """The object with its answer, or without one after SYNC_WAIT_S: it goes on being made."""
    inference_id, run = _ask(body, is_attached=False, inference_id=inference_id)
    deadline = time.monotonic() + settings().sync_wait_seconds
    try:
        while (left := deadline - time.monotonic()) > 0:
            event = run.poll(left)
            if event is not None and event.is_end:
                if event.value["state"] != RunState.SUCCEEDED:
                    raise live.error_of_end(event.value)
                break
    finally:
        run.close()
    return _get(inference_id)


def _change(
    inference_id: int, body: InferenceBody, question_text: str | None, desired_model: str | None
) -> InferenceObject:
    _check_client(body)
    found = inferences.get_inference(reading(), current_identity(), inference_id)
    question_text = question_text or found.question_text
    desired_model = desired_model or found.desired_model
    if body.answer_text:
        with unit_of_work() as session:
            inferences.store_answer(
                session, inference_id, question_text=question_text,
                desired_model=desired_model, answer_text=body.answer_text,
            )  # fmt: skip
        return _get(inference_id)
    if body.question_text is None and body.desired_model is None:
        return _object(found)
    asked = InferenceBody(
        question_text=question_text, desired_model=desired_model, answer_text=None,
        max_tokens=body.max_tokens, temperature=body.temperature, top_p=body.top_p,
    )  # fmt: skip
    return _ask_and_wait(asked, inference_id)
