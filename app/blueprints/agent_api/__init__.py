"""What our agents speak."""

from __future__ import annotations

import json
from http import HTTPStatus

from flask import Response

from app.blueprints.agent_api import relay_view, views
from app.blueprints.agent_api.api import blueprint
from app.web.dialects import ApiError, Dialect

__all__ = ["dialect", "relay_view", "views"]


def render_error(error: ApiError) -> Response:
    """Problem details (RFC 9457), with our stable code beside the sentence."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.message,
        "code": error.code,
    }
    return Response(json.dumps(body), error.status, mimetype="application/problem+json")


dialect = Dialect(
    name="agent",
    prefixes=("/agent",),
    blueprint=blueprint,
    render_error=render_error,
    summary="What the agent on a provider's machine tells the hub and asks it.",
    error_schema={
        "description": "Problem details, RFC 9457.",
        "type": "object",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": {"type": "string"},
        },
    },
    carriers=("node",),
)
