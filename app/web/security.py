"""Headers that every answer carries."""

from __future__ import annotations

from flask import Flask, Response, request

from app.core.domain.errors import NotFound

_CSP = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)


def install_security_headers(app: Flask) -> None:
    """No inline script, no framing, no sniffing, no referrer to strangers."""

    def add(response: Response) -> Response:
        headers = response.headers
        headers.setdefault("Content-Security-Policy", _CSP)
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("Referrer-Policy", "same-origin")
        headers.setdefault("X-Frame-Options", "DENY")
        headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
        return response

    app.before_request(_refuse_nul)
    app.after_request(add)


def _refuse_nul() -> None:
    """A path with a NUL in it leads nowhere: no database of ours looks for one."""
    if "\x00" in request.path:
        raise NotFound
