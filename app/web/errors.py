"""The only place where a refusal becomes an HTTP status, in the caller's dialect."""

from __future__ import annotations

import logging

from flask import Flask, Response, make_response, request
from sqlalchemy.exc import DataError
from werkzeug.exceptions import HTTPException

from app.core.domain.errors import DomainError
from app.web.dialects import ApiError, Violation, dialect_map

log = logging.getLogger(__name__)

STATUS_OF_CODE = {
    "invalid": 400,
    "two_credentials": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "model_not_found": 404,
    "conflict": 409,
    "taken": 409,
    "too_large": 413,
    "rate_limited": 429,
    "no_capacity": 503,
    "unavailable": 503,
    "context_length_exceeded": 400,
    "engine_error": 502,
    "engine_overloaded": 503,
    "engine_rejected": 400,
    "error": 400,
}
_CODE_OF_STATUS = {
    400: "invalid",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid",
    429: "rate_limited",
    503: "unavailable",
}
_RETRY_AFTER_SECONDS = {429: 60, 503: 5}


class BadRequestBody(Exception):
    """A request that breaks its schema. `status` is the dialect's choice."""

    def __init__(self, status: int, code: str, violations: tuple[Violation, ...]) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.violations = violations


def install_error_handlers(app: Flask) -> None:
    """Render every error in the shape of the API whose URL was called."""
    app.register_error_handler(DomainError, _on_domain_error)
    app.register_error_handler(BadRequestBody, _on_bad_body)
    app.register_error_handler(HTTPException, _on_http_error)
    app.register_error_handler(DataError, _on_data_error)


def _on_domain_error(error: DomainError) -> Response:
    return render(
        ApiError(
            status=STATUS_OF_CODE.get(error.code, 400),
            code=error.code,
            message=error.message,
            field=error.field,
            retry_after_seconds=error.retry_after_seconds,
        )
    )


def _on_data_error(_error: DataError) -> Response:
    """A value that the column cannot hold: a number out of range, a NUL in a text."""
    return render(ApiError(400, "invalid", "A value in the request is out of range."))


def _on_bad_body(error: BadRequestBody) -> Response:
    first = error.violations[0]
    message = f"{first.field}: {first.message}" if len(first.location) > 1 else first.message
    return render(
        ApiError(
            status=error.status,
            code=error.code,
            message=message,
            field=first.field if len(first.location) > 1 else None,
            violations=error.violations,
        )
    )


def _on_http_error(error: HTTPException) -> Response:
    status = error.code or 500
    if status < 400:  # a redirect that routing raised
        return make_response(error.get_response())
    message = error.description or error.name
    if status >= 500 and status != 503:
        message = "Internal server error"
    rendered = render(ApiError(status, _CODE_OF_STATUS.get(status, "error"), message))
    for name, value in error.get_headers():
        if name in {"Allow", "WWW-Authenticate"}:
            rendered.headers[name] = value
    return rendered


def render(error: ApiError) -> Response:
    """The response that says `error` in the dialect of the requested path."""
    dialect = dialect_map().of_path(request.path)
    if dialect is None:
        dialect = dialect_map().dialects[-1]  # the dashboard answers for the rest
    response = dialect.render_error(error)
    retry_after = error.retry_after_seconds or _RETRY_AFTER_SECONDS.get(error.status)
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    return response
