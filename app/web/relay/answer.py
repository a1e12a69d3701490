"""One relayed answer: frames from an agent become an HTTP response to a worker.

What comes from the agent is untrusted: heads are checked and written anew, bodies are framed
here, and no more is kept than the window allows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from app.web.relay.frames import WINDOW_BYTES
from app.web.relay.outbox import Outbox

MAX_HEAD_BYTES: Final = 32 * 1024
MAX_HEADERS: Final = 100
MAX_MESSAGE_CHARACTERS: Final = 300
# So much has been passed on before the agent is told; less often costs less.
CREDIT_BYTES: Final = WINDOW_BYTES // 4

STATUS_OF_REASON: Final = {
    "engine_unreachable": 502,
    "engine_broke": 502,
    "engine_refused": 502,
    "engine_overloaded": 503,
    "engine_timeout": 504,
}

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}")
_BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")
_DROPPED = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade", "content-length", "set-cookie", "content-encoding",
    }
)  # fmt: skip
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class BadAnswer(Exception):
    """The agent's frames make no answer."""


class Answer:
    """One request's answer on a worker's connection. `credit` tells the agent of room."""

    __slots__ = ("_credit", "_has_body", "_outbox", "_owed", "has_head", "is_done", "stream_id")

    def __init__(
        self, stream_id: int, outbox: Outbox, credit: Callable[[Answer, int], None]
    ) -> None:
        self.stream_id = stream_id
        self.is_done = False
        self.has_head = False
        self._has_body = True
        self._outbox = outbox
        self._credit = credit
        self._owed = 0

    def head(self, payload: bytes) -> None:
        """The engine's status and headers. Raises BadAnswer."""
        if self.has_head:
            raise BadAnswer("A second head.")
        status, lines = _checked_head(payload)
        self._has_body = status not in (204, 304)
        if self._has_body:
            lines.append("Transfer-Encoding: chunked")
        self._outbox.put("\r\n".join([*lines, "", ""]).encode("latin-1"))
        self.has_head = True

    def body(self, payload: bytes) -> None:
        """More of the body. Raises BadAnswer when there is no head or no room."""
        if not self.has_head or not self._has_body:
            raise BadAnswer("A body without a head.")
        if not payload:  # an empty chunk would end the body
            return
        self._owed += len(payload)
        if self._owed > WINDOW_BYTES:
            raise BadAnswer("More than the window allows.")
        self._outbox.put(b"%x\r\n%b\r\n" % (len(payload), payload))
        if self._owed >= CREDIT_BYTES and not self._outbox.waiting_bytes:
            self.settle()

    def end(self) -> None:
        """The body is whole. Raises BadAnswer when there was no head."""
        if not self.has_head:
            raise BadAnswer("An end without a head.")
        self.is_done = True
        if self._has_body:
            self._outbox.put(b"0\r\n\r\n")

    def fail(self, reason: str, message: str) -> None:
        """There is no (more) answer: an error if nothing was sent yet, else a cut."""
        if self.is_done:
            return
        self.is_done = True
        if self.has_head:
            self._outbox.shut()
            return
        status = STATUS_OF_REASON.get(reason, 502)
        kind = reason if reason in STATUS_OF_REASON else "engine_broke"
        self._outbox.put(error_response(status, kind, message))

    def settle(self) -> None:
        """Everything so far is with the worker: let the agent send as much again."""
        owed, self._owed = self._owed, 0
        if owed and not self.is_done:
            self._credit(self, owed)


def error_response(status: int, kind: str, message: str, *, closes: bool = False) -> bytes:
    """A whole response in the form that engines' errors have."""
    body = json.dumps({"error": {"message": message[:MAX_MESSAGE_CHARACTERS], "type": kind}})
    head = (
        f"HTTP/1.1 {status} {_PHRASES.get(status, 'Error')}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    return (head + ("Connection: close\r\n" if closes else "") + "\r\n" + body).encode()


def parse_error(payload: bytes) -> tuple[str, str]:
    """Reason and message of an agent's error frame, whatever it holds."""
    value = _object(payload) if len(payload) <= MAX_HEAD_BYTES else None
    if value is None:
        return "engine_broke", "The agent's error cannot be read."
    return str(value.get("reason", ""))[:50], str(value.get("message", ""))


def _checked_head(payload: bytes) -> tuple[int, list[str]]:
    value = _object(payload) if len(payload) <= MAX_HEAD_BYTES else None
    if value is None:
        raise BadAnswer("The head is no JSON object, or too long.")
    status, headers = value.get("status"), value.get("headers", {})
    if type(status) is not int or not 200 <= status <= 599:
        raise BadAnswer("The status is none.")
    if not isinstance(headers, dict) or len(headers) > MAX_HEADERS:
        raise BadAnswer("Too many headers, or none.")
    lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, 'Status')}"]
    lines += [
        f"{name}: {text}"
        for name, text in headers.items()
        if isinstance(text, str)
        and name.lower() not in _DROPPED
        and _TOKEN.fullmatch(name)
        and not _BAD_VALUE.search(text)
    ]
    return status, lines


def _object(payload: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
