"""The OpenAI API, as every app speaks it."""

from __future__ import annotations

from flask import Response

from app.blueprints.openai import run_views, views
from app.blueprints.openai.api import api, blueprint
from app.web.auth import guard_api
from app.web.dialects import ApiError, Dialect
from app.web.validation import json_response

__all__ = ["dialect", "run_views", "views"]

_TYPE_OF_STATUS = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    502: "server_error",
    503: "server_error",
}
_CODE_OF_DOMAIN = {
    "unauthenticated": "invalid_api_key",
    "model_not_found": "model_not_found",
    "context_length_exceeded": "context_length_exceeded",
    "rate_limited": "rate_limit_exceeded",
    "no_capacity": "no_capacity",
    "engine_overloaded": "engine_overloaded",
}


def render_error(error: ApiError) -> Response:
    """`{"error": {message, type, param, code}}`, as OpenAI's SDKs read it."""
    code = _CODE_OF_DOMAIN.get(error.code)
    kind = _TYPE_OF_STATUS.get(error.status, "invalid_request_error")
    body = {"message": error.message, "type": kind, "param": error.field, "code": code}
    return json_response({"error": body}, error.status)


blueprint.before_request(guard_api(api.open_endpoints, allows_model_keys=True))

dialect = Dialect(
    name="openai",
    prefixes=("/v1",),
    blueprint=blueprint,
    render_error=render_error,
    summary="The OpenAI API, as every app speaks it, over all models of the network.",
    error_schema={
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                },
            }
        },
    },
)
