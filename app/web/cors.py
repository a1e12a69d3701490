"""CORS for the apps that run in browsers and webviews: listed origins, never credentials."""

from __future__ import annotations

from flask import Flask, Response, request

from app.web.context import settings
from app.web.dialects import dialect_map

_METHODS = "GET, POST, PUT, PATCH, DELETE, OPTIONS"
_HEADERS = (
    "Authorization, Content-Type, X-API-Key, Accept, Last-Event-ID, X-Requested-With,"
    " Range, If-Range, If-None-Match"
)
_EXPOSED = (
    "X-Total-Count, X-DeepResearch-Id, X-Truncated, Retry-After, Content-Disposition, ETag,"
    " Content-Range"
)


def install_cors(app: Flask) -> None:
    """Answer preflights before anything else and mark every API answer, streams included."""
    app.before_request(_answer_preflight)
    app.after_request(_add_headers)


def _is_allowed() -> bool:
    dialect = dialect_map().of_path(request.path)
    origin = request.headers.get("Origin")
    return dialect is not None and dialect.is_api and origin in settings().cors_origins


def _answer_preflight() -> Response | None:
    if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
        return None
    response = Response(status=204)
    if _is_allowed():
        response.headers["Access-Control-Allow-Methods"] = _METHODS
        response.headers["Access-Control-Allow-Headers"] = _HEADERS
        response.headers["Access-Control-Max-Age"] = "600"
    return response


def _add_headers(response: Response) -> Response:
    if request.headers.get("Origin") is not None and dialect_map().of_path(request.path):
        response.headers.add("Vary", "Origin")
        if _is_allowed():
            response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED
    return response
