"""Heartbeats are most of the requests: the good ones are answered before Flask begins.

Everything else about them (a wrong token, a broken body, Redis away) falls through to the
route of the agent API, which finds the same fault again and says so in its own shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

from flask import Flask

from app.core.database import make_sessions
from app.core.domain.beats import MAX_BEAT_BYTES, decode_beat
from app.core.domain.errors import DomainError
from app.core.services.heartbeats import HeartbeatDoor
from app.core.services.node_tokens import KnownNode
from app.extensions import db

PATH = "/agent/v1/heartbeat"
WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]


def install_heartbeats(app: Flask) -> None:
    """Give the app its door for heartbeats, and put the fast path in front of it."""
    with app.app_context():
        sessions = make_sessions(db.engine)
    door = HeartbeatDoor(sessions, app.extensions["weft_settings"].redis_url)
    app.extensions["weft_heartbeats"] = door
    app.wsgi_app = HeartbeatFastPath(app.wsgi_app, door)  # type: ignore[method-assign]


class HeartbeatFastPath:
    """A WSGI application around another."""

    def __init__(self, inner: WsgiApp, door: HeartbeatDoor) -> None:
        self._inner = inner
        self._door = door

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer a heartbeat that is right in every way; hand on everything else."""
        if environ.get("PATH_INFO") != PATH or environ.get("REQUEST_METHOD") != "POST":
            return self._inner(environ, start_response)
        body = _read(environ)
        node = self._take(environ, body) if body is not None else None
        if node is None:
            return self._inner(environ, start_response)
        answer = _answer(node)
        start_response(
            "200 OK",
            [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(answer))),
                ("X-Content-Type-Options", "nosniff"),
                ("Cache-Control", "no-store"),
            ],
        )
        return [answer]

    def _take(self, environ: dict[str, Any], body: bytes) -> KnownNode | None:
        secret = _secret(environ)
        if secret is None or environ.get("HTTP_X_API_KEY"):
            return None
        try:
            beat = decode_beat(body)
        except (ValueError, RecursionError):  # the careful door says what is wrong with it
            return None
        try:
            node = self._door.tokens.find(secret)
            if node is not None:
                self._door.take(node, beat)
        except DomainError:
            return None
        return node


def _answer(node: KnownNode) -> bytes:
    draining = "true" if node.draining else "false"
    text = f'{{"ok":true,"desired_revision":{node.revision},"draining":{draining}}}'
    return text.encode()


def _read(environ: dict[str, Any]) -> bytes | None:
    """The body, left in place for whoever reads it again; None when it is not for us."""
    content_type = environ.get("CONTENT_TYPE", "")
    if not content_type.startswith("application/json"):
        return None
    length = environ.get("CONTENT_LENGTH", "")
    if not (length.isascii() and length.isdigit()) or int(length) > MAX_BEAT_BYTES:
        return None
    body: bytes = environ["wsgi.input"].read(int(length))
    environ["wsgi.input"] = BytesIO(body)
    return body


def _secret(environ: dict[str, Any]) -> str | None:
    scheme, _, secret = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    return secret.strip() or None if scheme.lower() == "bearer" else None
