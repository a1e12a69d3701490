"""Models, chats and completions."""

from __future__ import annotations

from typing import Any

from flask import Response

from app.blueprints.openai import schemas, translate
from app.blueprints.openai.api import api
from app.core.clock import utc_now
from app.core.domain.errors import InvalidInput, ModelNotFound
from app.core.domain.runs import RunRequest, RunState
from app.core.services import models
from app.web.auth import current_identity
from app.web.context import settings
from app.web.live import LiveRun, error_of_end, start_run
from app.web.transaction import reading


@api.route("GET", "/v1/models", answer=schemas.ModelList)
def list_models() -> schemas.ModelList:
    """Models that some online node serves now."""
    found = models.list_available(
        reading(), now=utc_now(), offline_after_seconds=settings().offline_after_seconds
    )
    only = current_identity().model_name
    return schemas.ModelList(
        data=[_card(model) for model in found if only is None or model.name == only]
    )


@api.route("GET", "/v1/models/<path:model_name>", answer=schemas.ModelCard)
def get_model(model_name: str) -> schemas.ModelCard:
    """One model that some online node serves now."""
    if current_identity().model_name not in {None, model_name}:
        raise ModelNotFound(f"The model `{model_name}` does not exist.", field="model")
    return _card(
        models.get_available(
            reading(), model_name, now=utc_now(),
            offline_after_seconds=settings().offline_after_seconds,
        )
    )  # fmt: skip


def _card(model: models.AvailableModel) -> schemas.ModelCard:
    created = int(model.first_seen_at.timestamp())
    return schemas.ModelCard(id=model.name, created=created, owned_by="weft")


@api.route("POST", "/v1/chat/completions", body=schemas.ChatCompletionBody)
def create_chat_completion(body: schemas.ChatCompletionBody) -> Response | dict[str, Any]:
    """Answer a chat, whole or as a stream."""
    run, created = _start(translate.chat_request(body)), utc_now()
    if body.stream:
        wants_usage = bool(body.stream_options and body.stream_options.include_usage)
        stream = translate.ChatStream(run.uid, body.model, created, wants_usage=wants_usage)
        return run.stream(stream.frames, stream.text_frame)
    return translate.chat_completion(run.uid, body.model, created, _gather(run))


@api.route("POST", "/v1/completions", body=schemas.CompletionBody)
def create_completion(body: schemas.CompletionBody) -> Response | dict[str, Any]:
    """Complete a prompt, whole or as a stream."""
    if body.echo:
        raise InvalidInput("echo is not supported.", field="echo")
    run, created = _start(translate.completion_request(body)), utc_now()
    if body.stream:
        wants_usage = bool(body.stream_options and body.stream_options.include_usage)
        stream = translate.CompletionStream(
            run.uid, body.model, created, wants_usage=wants_usage
        )
        return run.stream(stream.frames, stream.text_frame)
    return translate.completion(run.uid, body.model, created, _gather(run))


def _start(wanted: RunRequest) -> LiveRun:
    """Start a run that lives as long as its caller, and wait for its first event."""
    run = start_run(current_identity(), wanted, door="openai", is_attached=True)
    run.wait_first()
    return run


def _gather(run: LiveRun) -> translate.Gathered:
    answer = translate.Gathered()
    for event in run.events():
        answer.add(event)
    if answer.end is None or answer.end["state"] != RunState.SUCCEEDED:
        raise error_of_end(answer.end or {"state": "cancelled"})
    return answer
