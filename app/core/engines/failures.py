"""What went wrong at an engine, told in the domain's errors.

An engine's own words are untrusted: they are clipped and cleaned before anybody reads them.
"""

from __future__ import annotations

import json
import re
from typing import Any

from app.core.domain.errors import (
    DomainError,
    EngineError,
    EngineOverloaded,
    EngineRejected,
    PromptTooLong,
)
from app.core.engines.http import ConnectFailed, ConnectionLost, HttpFailure, TimedOut

MAX_MESSAGE_CHARACTERS = 300

# A node must not send callers away for long.
MAX_RETRY_AFTER_SECONDS = 60
_SECONDS = re.compile(r"[0-9]{1,9}")

_TOO_LONG_TYPES = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_TOO_LONG = re.compile(
    r"maximum context length|maximum model length|context size|context length"
    r"|inputs`? must have less than \d+ tokens"
    r"|inputs`? tokens \+ `?max_new_tokens`? must be",
    re.IGNORECASE,
)
# How our own relay says why it has no answer of the engine's.
_RELAY_REASONS = frozenset({"engine_unreachable", "engine_timeout", "engine_overloaded"})
_OVERLOADED = re.compile(r"overloaded|queue is full|too many requests", re.IGNORECASE)
# TGI puts every failure inside a chat stream under the code 422; only the words differ.
_BROKE = re.compile(
    r"request failed during generation|incomplete generation"
    r"|failed to parse generated text",  # a tool call cut off; another try may fit
    re.IGNORECASE,
)


def from_wire(error: HttpFailure) -> EngineError:
    """The failure of an HTTP exchange: unreachable, timed out, or nonsense."""
    if isinstance(error, TimedOut):
        return EngineError("The engine did not answer in time.", reason="engine_timeout")
    if isinstance(error, ConnectFailed):
        return EngineError("The engine cannot be reached.", reason="engine_unreachable")
    if isinstance(error, ConnectionLost):
        return EngineError(
            "The connection to the engine was lost.", reason="engine_unreachable"
        )
    return broke(f"The engine's answer cannot be read: {error}")


def from_status(status: int, body: bytes, *, retry_after: str = "") -> DomainError:
    """The error that an HTTP status, its body and its Retry-After stand for.

    A missing model or path (404) is the node's matter, not the request's: another node may
    well have it.
    """
    message, kind = _message_of(body)
    said = message or f"status {status}"
    if status in (502, 503, 504) and kind in _RELAY_REASONS:
        is_full = kind == "engine_overloaded"
        return EngineOverloaded(said) if is_full else EngineError(said, reason=kind)
    if status in (400, 413, 422):
        return _about_request(said, kind)
    if status in (429, 503):
        return overloaded(said, retry_after)
    if status in (401, 403):
        return EngineError(
            f"The engine refused the hub's credential ({status}).", reason="engine_refused"
        )
    if status == 404:
        return EngineError(
            f"The engine does not know what was asked for: {said}", reason="engine_refused"
        )
    if status in (408, 504):
        return EngineError(f"The engine timed out: {said}", reason="engine_timeout")
    return broke(f"The engine failed with status {status}: {said}")


def from_error_object(error: Any) -> DomainError:
    """The error inside a stream that began well: `{"error": text or object, …}`.

    `error` is the whole payload. Codes are used where they are meaningful, words otherwise.
    """
    message, kind = _describe(error)
    inner = error.get("error")
    code = inner.get("code") if isinstance(inner, dict) else None
    said = message or "no reason given"
    if isinstance(code, int) and 400 <= code < 600:
        return from_status(code, json.dumps(error).encode())
    return (
        _about_request(said, kind)
        if _is_about_request(said, kind)
        else broke(f"The engine failed: {said}")
    )


def broke(message: str) -> EngineError:
    """The engine failed or talks nonsense; another node may do better."""
    return EngineError(message, reason="engine_broke")


def overloaded(message: str, retry_after: str = "") -> EngineOverloaded:
    """The engine has no room now. `retry_after` is its header, or nothing."""
    return EngineOverloaded(
        f"The engine is overloaded: {message}", retry_after_seconds=_seconds(retry_after)
    )


def _seconds(retry_after: str) -> int | None:
    """Whole seconds of a Retry-After, a minute at most; None for a date and for nonsense."""
    if not _SECONDS.fullmatch(retry_after):
        return None
    return min(max(1, int(retry_after)), MAX_RETRY_AFTER_SECONDS)


def clean(text: str) -> str:
    """An engine's words made fit for a message: one line, printable, of bounded length."""
    words = "".join(c if c.isprintable() else " " for c in text[: 2 * MAX_MESSAGE_CHARACTERS])
    return " ".join(words.split())[:MAX_MESSAGE_CHARACTERS]


def _about_request(message: str, kind: str) -> DomainError:
    if kind in _TOO_LONG_TYPES or _TOO_LONG.search(message):
        return PromptTooLong(f"The prompt does not fit in the model's context: {message}")
    if kind == "overloaded" or _OVERLOADED.search(message):
        return overloaded(message)
    if kind in ("generation", "incomplete_generation") or _BROKE.search(message):
        return broke(f"The engine failed: {message}")
    return EngineRejected(f"The engine rejected the request: {message}")


def _is_about_request(message: str, kind: str) -> bool:
    words = message.lower()
    return (
        kind in _TOO_LONG_TYPES
        or kind in ("validation", "overloaded", "invalid_request_error", "BadRequestError")
        or "validation error" in words
        or bool(_TOO_LONG.search(message) or _OVERLOADED.search(message))
    )


def _message_of(body: bytes) -> tuple[str, str]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        # Framework errors are plain text. A page of HTML is no sentence for a caller.
        text = body.decode("utf-8", "replace")
        return ("" if text.lstrip().startswith("<") else clean(text)), ""
    return _describe(value)


def _describe(value: Any) -> tuple[str, str]:
    """Message and kind of the error bodies in use: flat, nested, FastAPI's, bare text."""
    if isinstance(value, str):
        return clean(value), ""
    if not isinstance(value, dict):
        return "", ""
    kind = value.get("error_type") or value.get("type") or ""
    error = value.get("error", value)
    if isinstance(error, dict):
        inner_kind = error.get("type") or error.get("code") or kind
        message = error.get("message") or error.get("detail") or ""
        return _text(message), inner_kind if isinstance(inner_kind, str) else ""
    return _text(error), kind if isinstance(kind, str) else ""


def _text(value: Any) -> str:
    return clean(value if isinstance(value, str) else json.dumps(value))
