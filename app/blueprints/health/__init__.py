"""Whether the hub lives, is ready, and how it does."""

from __future__ import annotations

from flask import Response

from app.blueprints.health import views
from app.blueprints.health.api import blueprint
from app.web.dialects import ApiError, Dialect
from app.web.validation import json_response

__all__ = ["dialect", "views"]


def render_error(error: ApiError) -> Response:
    """`{"detail": …}`."""
    return json_response({"detail": error.message}, error.status)


dialect = Dialect(
    name="health",
    prefixes=("/healthz", "/readyz", "/metrics"),
    blueprint=blueprint,
    render_error=render_error,
    summary="Whether the hub lives, is ready, and how it does.",
    error_schema={
        "type": "object",
        "required": ["detail"],
        "properties": {"detail": {"type": "string"}},
    },
)
