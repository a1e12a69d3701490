"""Liveness, readiness, and figures for Prometheus."""

from __future__ import annotations

from flask import Response

from app.blueprints.health.api import api
from app.core.services import health
from app.web.context import redis_client, settings
from app.web.transaction import reading
from app.web.validation import json_response


@api.route("GET", "/healthz", is_open=True)
def live() -> Response:
    """200 as long as this process answers."""
    return json_response({"status": "ok"})


@api.route("GET", "/readyz", is_open=True)
def ready() -> Response:
    """200 when the database, Redis and a worker are there; else 503 and which is missing."""
    checks = health.check(reading(), redis_client())
    status = 200 if all(value == "ok" for value in checks.values()) else 503
    return json_response(
        {"status": "ready" if status == 200 else "not ready", **checks}, status
    )


@api.route("GET", "/metrics", media_type="text/plain", is_open=True)
def metrics() -> Response:
    """The network's figures in Prometheus's text format."""
    text = health.metrics(
        reading(), redis_client(), offline_after_seconds=settings().offline_after_seconds
    )
    return Response(text, mimetype="text/plain")
