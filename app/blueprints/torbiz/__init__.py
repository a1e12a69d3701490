"""torbiz: the API of a desktop app that shares a GPU and chats."""

from __future__ import annotations

from flask import Response

from app.blueprints.torbiz import (
    account_views,
    client_views,
    gpu_views,
    inference_views,
    model_views,
    research_views,
)
from app.blueprints.torbiz.api import api, blueprint
from app.web.auth import guard_api
from app.web.dialects import ApiError, Dialect
from app.web.validation import json_response

__all__ = [
    "account_views",
    "client_views",
    "dialect",
    "gpu_views",
    "inference_views",
    "model_views",
    "research_views",
]


def render_error(error: ApiError) -> Response:
    """`{"detail": …}`, or `{field: [messages]}` as Django REST Framework writes them."""
    by_field: dict[str, list[str]] = {}
    for violation in error.violations:
        if len(violation.location) > 1:
            by_field.setdefault(str(violation.location[1]), []).append(violation.message)
    if not by_field and error.field and error.status == 400:
        by_field = {error.field: [error.message]}
    if error.code == "taken" and error.field:
        return json_response({error.field: [error.message]}, 400)
    response = json_response(by_field or {"detail": error.message}, error.status)
    if error.status == 401:
        response.headers["WWW-Authenticate"] = 'Basic realm="weft"'
    return response


blueprint.before_request(guard_api(api.open_endpoints))

dialect = Dialect(
    name="torbiz",
    prefixes=("/client", "/gpu", "/inference", "/llm_models", "/deepresearch"),
    blueprint=blueprint,
    render_error=render_error,
    summary="Share a GPU and chat: accounts, machines, questions and research.",
    error_schema={
        "description": "A sentence, or the messages of each field that is wrong.",
        "type": "object",
        "properties": {"detail": {"type": "string"}},
        "additionalProperties": {"type": "array", "items": {"type": "string"}},
    },
)
