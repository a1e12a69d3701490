"""The limit: a WSGI function that parses and checks a heartbeat, knows its token, and no more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from app.core.domain.beats import decode_beat

KNOWN_PREFIX = "Bearer "
_ANSWER = b'{"ok":true,"desired_revision":0,"draining":false}'
_HEADERS = [("Content-Type", "application/json"), ("Content-Length", str(len(_ANSWER)))]


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer any heartbeat that is one."""
    if environ["REQUEST_METHOD"] != "POST":
        start_response("200 OK", [("Content-Length", "0")])
        return [b""]
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    if not environ.get("HTTP_AUTHORIZATION", "").startswith(KNOWN_PREFIX):
        start_response("401 Unauthorized", [("Content-Length", "0")])
        return [b""]
    decode_beat(body)
    start_response("200 OK", _HEADERS)
    return [_ANSWER]
