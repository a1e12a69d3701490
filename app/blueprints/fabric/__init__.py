"""fabric: a GPU network's API for provider dashboards and Android apps."""

from __future__ import annotations

from flask import Response

from app.blueprints.fabric.api import api, blueprint
from app.blueprints.fabric.translate import envelope
from app.web.auth import guard_api
from app.web.dialects import ApiError, Dialect


def render_error(error: ApiError) -> Response:
    """The envelope, with `success` false and the reason as its message."""
    return envelope(None, message=error.message, status=error.status, success=False)


blueprint.before_request(guard_api(api.open_endpoints))

dialect = Dialect(
    name="fabric",
    prefixes=("/api/user", "/api/models/insert", "/api/models/get", "/api/apk"),
    blueprint=blueprint,
    render_error=render_error,
    summary="A GPU network for provider dashboards and Android apps: nodes, points, models, APKs.",
    error_schema={
        "type": "object",
        "required": ["success", "data", "message", "timestamp"],
        "properties": {
            "success": {"const": False},
            "data": {"type": "null"},
            "message": {"type": "string"},
            "timestamp": {"type": "string"},
        },
    },
)
