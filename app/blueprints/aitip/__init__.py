"""aitip: an API for datasets, training and inference services."""

from __future__ import annotations

from http import HTTPStatus

from flask import Response

from app.blueprints.aitip import account_views, dataset_views
from app.blueprints.aitip.api import api, blueprint
from app.web.auth import guard_api
from app.web.dialects import ApiError, Dialect
from app.web.validation import json_response

__all__ = ["account_views", "dataset_views", "dialect"]


def render_error(error: ApiError) -> Response:
    """`{success: false, error: {code, message}}`; the code is HTTP's reason phrase."""
    code = HTTPStatus(error.status).phrase
    body = {"success": False, "error": {"code": code, "message": error.message}}
    response = json_response(body, error.status)
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


blueprint.before_request(guard_api(api.open_endpoints))

dialect = Dialect(
    name="aitip",
    prefixes=("/api/v1",),
    blueprint=blueprint,
    render_error=render_error,
    summary="Datasets, training jobs and inference services.",
    error_schema={
        "type": "object",
        "required": ["success", "error"],
        "properties": {
            "success": {"const": False},
            "error": {
                "type": "object",
                "required": ["code", "message"],
                "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
)
