"""The dashboard: HTML pages at `/`, whole or as fragments for htmx."""

from __future__ import annotations

from flask import Response, current_app, make_response, request

from app.blueprints.dashboard import (
    account,
    admin,
    agent_download,
    apps,
    data,
    join,
    keys,
    models,
    node_parts,
    nodes,
    overview,
    playground,
    points,
    research,
    runs,
    views_auth,
    views_google,
    views_password,
)
from app.blueprints.dashboard.pages import blueprint
from app.web.dialects import ApiError, Dialect
from app.web.validation import json_response

__all__ = [
    "account", "admin", "agent_download", "apps", "data", "dialect", "join", "keys", "models", "node_parts", "nodes",
    "overview", "playground", "points", "research", "runs", "views_auth",
    "views_google", "views_password",
]  # fmt: skip

_TITLES = {
    400: "That request is not right",
    401: "Sign in first",
    403: "Not for this account",
    404: "Nothing here",
    405: "Not like this",
    413: "That is too large",
    429: "Too many requests",
    500: "Something broke on our side",
    503: "Not available right now",
}
_MESSAGES = {
    404: "There is nothing at this address, or it belongs to somebody else.",
    500: "The fault is noted in the log. Try again; if it stays, tell the hub's admin.",
}


def render_error(error: ApiError) -> Response:
    """A page in the dashboard's style; JSON for the scripts that asked with JSON."""
    message = _MESSAGES.get(error.status) or error.message
    if (
        request.mimetype == "application/json"
        or request.accept_mimetypes.best == "application/json"
    ):
        return json_response(
            {"code": error.code, "message": error.message, "field": error.field}, error.status
        )
    # Without the context processors: they ask who calls, which may be what failed.
    body = current_app.jinja_env.get_template("dashboard/error.html").render(
        status=error.status,
        title=_TITLES.get(error.status, "That did not work"),
        message=message,
        retry_after=error.retry_after_seconds,
    )
    return make_response(body, error.status)


dialect = Dialect(
    name="dashboard",
    prefixes=("/",),
    blueprint=blueprint,
    render_error=render_error,
    is_api=False,
)
