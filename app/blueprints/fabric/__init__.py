"""fabric: a GPU network's API for provider dashboards and Android apps."""

from __future__ import annotations

from flask import Response

from app.blueprints.fabric import catalog_views, client_views, history_views
from app.blueprints.fabric.api import blueprint
from app.blueprints.fabric.guard import guard
from app.blueprints.fabric.translate import envelope
from app.web.dialects import ApiError, Dialect

__all__ = ["catalog_views", "client_views", "dialect", "history_views"]


def render_error(error: ApiError) -> Response:
    """The envelope, with `success` false and the reason as its message."""
    return envelope(None, message=error.message, status=error.status, success=False)


blueprint.before_request(guard)

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
