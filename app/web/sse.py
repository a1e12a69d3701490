"""Server-sent events, and other answers that flow."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any

from flask import Response, request
from gevent import socket as gevent_socket

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


class ClientLine:
    """The caller's own socket, for pieces that need nothing but to be sent.

    gunicorn writes what an answer yields: the greenlet of the request is woken, and gevent's
    `sendall` sets a timer up, for every token. Once the header is out, whoever has a piece may
    send it from here without waiting. What a full socket does not take goes the usual way.
    """

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._send: Callable[[bytes], int] = sock._sock.send
        self._rest = b""
        self._is_open = False

    def send(self, frame: bytes) -> bool:
        """Send a frame, if it can be now. False: yield it, as the answer's next frame."""
        if not self._is_open:
            return False
        chunk = b"%X\r\n%b\r\n" % (len(frame), frame)
        try:
            sent = self._send(chunk)
        except OSError:  # full, or closed: the answer's own greenlet finds out and waits
            return False
        if sent == len(chunk):
            return True
        self._rest = chunk[sent:]
        self._is_open = False
        return False

    def carry(self, frames: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
        """The frames for gunicorn; between them, `send` may be used."""
        try:
            for frame in frames:
                if self._rest:
                    self._flush()  # this very frame, whose beginning is out already
                else:
                    yield frame
                # Back here, gunicorn has written what it was given, and the header before it.
                self._is_open = True
            self._flush()
        finally:
            self._is_open = False
            frames.close()

    def _flush(self) -> None:
        rest, self._rest = self._rest, b""
        self._sock.sendall(rest)


def client_line() -> ClientLine | None:
    """The line of this request's caller; None when its answer is not plain chunked HTTP/1.1."""
    environ = request.environ
    sock = environ.get("gunicorn.socket")
    is_plain = type(sock) is gevent_socket.socket and request.method != "HEAD"
    if is_plain and environ.get("SERVER_PROTOCOL") == "HTTP/1.1":
        return ClientLine(sock)
    return None
