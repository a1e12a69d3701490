"""dualquery: the API of a chat app with data sets and fine-tuning."""

from __future__ import annotations

from typing import Any

from flask import Response

from app.blueprints.dualquery import account_views, dataset_views
from app.blueprints.dualquery.api import api, blueprint
from app.web.auth import guard_api
from app.web.dialects import ApiError, Dialect
from app.web.validation import json_response

__all__ = ["account_views", "dataset_views", "dialect"]


def render_error(error: ApiError) -> Response:
    """`{"detail": …}`; a list of `{loc, msg, type}` when the request breaks its schema."""
    detail: Any = error.message
    if error.status == 422:
        detail = [
            {"loc": list(found.location), "msg": found.message, "type": found.rule}
            for found in error.violations
        ] or [{"loc": ["body"], "msg": error.message, "type": "value_error"}]
    response = json_response({"detail": detail}, error.status)
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


blueprint.before_request(guard_api(api.open_endpoints))

dialect = Dialect(
    name="dualquery",
    prefixes=("/api", "/health"),
    blueprint=blueprint,
    render_error=render_error,
    invalid_status=422,
    malformed_status=422,
    media_type_status=422,
    summary="Chats over data sets, models, fine-tuning and keys.",
    error_schema={
        "description": "A sentence; a list of what is wrong where with status 422.",
        "type": "object",
        "required": ["detail"],
        "properties": {
            "detail": {
                "anyOf": [
                    {"type": "string"},
                    {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["loc", "msg", "type"],
                            "properties": {
                                "loc": {
                                    "type": "array",
                                    "items": {"type": ["string", "integer"]},
                                },
                                "msg": {"type": "string"},
                                "type": {"type": "string"},
                            },
                        },
                    },
                ]
            }
        },
    },
)
