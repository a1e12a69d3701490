"""Server-sent events, and other answers that flow."""

from __future__ import annotations

from collections.abc import Iterable

from flask import Response

_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def sse_response(frames: Iterable[bytes], *, status: int = 200) -> Response:
    """An answer of server-sent events, each frame written as it comes."""
    return stream_response(frames, "text/event-stream", status=status)


def stream_response(frames: Iterable[bytes], media_type: str, *, status: int = 200) -> Response:
    """An answer written piece by piece; closing it closes `frames`."""
    return Response(
        frames, status, headers=_HEADERS, mimetype=media_type, direct_passthrough=True
    )


def frame(data: str, *, number: int | None = None, event: str | None = None) -> bytes:
    """One event. `data` holds no line break (JSON never does)."""
    head = f"event: {event}\n" if event else ""
    if number is not None:
        head += f"id: {number}\n"
    return f"{head}data: {data}\n\n".encode()


def last_event_id(header: str | None) -> int:
    """The number that a reader saw last; 0 for none or nonsense."""
    text = (header or "").strip()
    return int(text) if text.isdecimal() and len(text) < 10 else 0
