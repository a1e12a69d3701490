"""A response under way: its header, and its body in blocks or lines, all bounded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from time import monotonic
from typing import Protocol

MAX_HEADER_BYTES = 64 * 1024
MAX_LINE_BYTES = 1024 * 1024

_MAX_CHUNK_HEAD_BYTES = 1024


class HttpFailure(Exception):
    """The exchange failed. The subclasses say how."""


class ConnectFailed(HttpFailure):
    """No connection: refused, unreachable, unknown host, bad certificate."""


class ConnectionLost(HttpFailure):
    """The other side closed or reset the connection too early."""


class TimedOut(HttpFailure):
    """Nothing (or not enough) came in time."""


class BadResponse(HttpFailure):
    """What came is not HTTP, or more than we take."""


class Source(Protocol):
    """The connection that a response comes from. `received` counts the response's bytes."""

    received: int

    def receive(self, deadline: float) -> bytes: ...

    def keep(self) -> None: ...

    def close(self) -> None: ...


class Response:
    """A response whose header has come. Iterate `blocks()` or `lines()` once, or `read()`."""

    __slots__ = (
        "_connection",
        "_length",
        "_max_bytes",
        "_rest",
        "_reusable",
        "deadline",
        "headers",
        "status",
    )

    def __init__(
        self,
        connection: Source,
        *,
        status: int,
        headers: dict[str, str],
        rest: bytes,
        deadline: float,
        max_bytes: int,
        version: bytes,
    ) -> None:
        self._connection: Source | None = connection
        self._rest = rest
        self._max_bytes = max_bytes
        self._length = _content_length(headers)
        keep_alive = headers.get("connection", "").lower()
        self._reusable = keep_alive != "close" and (
            version == b"HTTP/1.1" or keep_alive == "keep-alive"
        )
        self.status = status
        self.headers = headers
        self.deadline = deadline

    @property
    def content_type(self) -> str:
        """The media type alone, lower case, "" if it was not said."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def extend(self, seconds: float) -> None:
        """Allow that many seconds from now for what comes next."""
        self.deadline = monotonic() + seconds

    def close(self) -> None:
        """Drop the connection unless the body was read to its end. Safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def read(self, max_bytes: int) -> bytes:
        """The whole body. Raises BadResponse when it is larger than `max_bytes`."""
        blocks: list[bytes] = []
        size = 0
        try:
            for block in self.blocks():
                size += len(block)
                if size > max_bytes:
                    raise BadResponse(f"The answer is larger than {max_bytes} bytes.")
                blocks.append(block)
        finally:
            self.close()
        return b"".join(blocks)

    def lines(self) -> Iterator[bytes]:
        r"""The body's lines, split at `\n` alone and without it; the last may lack one.

        Not `splitlines()`: JSON text may hold U+2028 or U+0085 as they are.
        """
        pieces: list[bytes] = []
        size = 0
        for block in self.blocks():
            if b"\n" in block:
                lines = block.split(b"\n")
                if pieces:
                    pieces.append(lines[0])
                    lines[0] = b"".join(pieces)
                    pieces = []
                tail = lines.pop()
                size = len(tail)
                if tail:
                    pieces.append(tail)
                yield from lines
            else:
                pieces.append(block)
                size += len(block)
            if size > MAX_LINE_BYTES:
                raise BadResponse(f"One line is longer than {MAX_LINE_BYTES} bytes.")
        if pieces:
            yield b"".join(pieces)

    def blocks(self) -> Iterator[bytes]:
        """The body as it comes. At its end the connection goes back to the pool."""
        if self.status in (204, 304) or self._length == 0:
            body: Iterable[bytes] = ()
        elif "chunked" in self.headers.get("transfer-encoding", "").lower():
            body = self._chunked()
        elif self._length is not None:
            body = self._counted(self._length)
        else:
            self._reusable = False
            body = self._until_closed()
        try:
            yield from body
            self._finish()
        finally:
            self.close()

    def _finish(self) -> None:
        connection = self._connection
        if connection is not None and self._reusable and not self._rest:
            self._connection = None
            connection.keep()

    def _receive(self) -> bytes:
        connection = self._connection
        if connection is None:
            raise ConnectionLost("The response is closed already.")
        data = connection.receive(self.deadline)
        if not data:
            raise ConnectionLost("The connection was closed before the answer ended.")
        if connection.received > self._max_bytes:
            raise BadResponse(f"The answer is larger than {self._max_bytes} bytes.")
        return data

    def _counted(self, left: int) -> Iterator[bytes]:
        data, self._rest = self._rest, b""
        while True:
            if len(data) > left:
                raise BadResponse("More came than the content length says.")
            if data:
                left -= len(data)
                yield data
            if not left:
                return
            data = self._receive()

    def _until_closed(self) -> Iterator[bytes]:
        data, self._rest = self._rest, b""
        connection = self._connection
        while connection is not None:
            if data:
                yield data
            data = connection.receive(self.deadline)
            if not data:
                return
            if connection.received > self._max_bytes:
                raise BadResponse(f"The answer is larger than {self._max_bytes} bytes.")

    def _chunked(self) -> Iterator[bytes]:
        data, self._rest = self._rest, b""
        while True:
            end = data.find(b"\r\n")
            if end < 0:
                if len(data) > _MAX_CHUNK_HEAD_BYTES:
                    raise BadResponse("A chunk does not begin with its size.")
                data += self._receive()
                continue
            size = _chunk_size(data[:end])
            if size == 0:
                self._skip_trailers(data[end + 2 :])
                return
            start = end + 2
            stop = start + size
            while len(data) < stop:  # a chunk in several pieces: pass on what is there
                if len(data) > start:
                    yield data[start:]
                stop -= len(data)
                start = 0
                data = self._receive()
            if stop > start:
                yield data[start:stop]
            while len(data) < stop + 2:
                data += self._receive()
            if data[stop : stop + 2] != b"\r\n":
                raise BadResponse("A chunk is longer than it says.")
            data = data[stop + 2 :]

    def _skip_trailers(self, data: bytes) -> None:
        while not data.startswith(b"\r\n") and b"\r\n\r\n" not in data:
            if len(data) > MAX_HEADER_BYTES:
                raise BadResponse("The trailers are too long.")
            data += self._receive()
        end = 2 if data.startswith(b"\r\n") else data.index(b"\r\n\r\n") + 4
        self._rest = data[end:]


def parse_head(head: bytes) -> tuple[bytes, int, dict[str, str]]:
    """A response header as HTTP version, status and headers. Raises BadResponse."""
    first, *lines = head.split(b"\r\n")
    version, _, rest = first.partition(b" ")
    code = rest[:3]
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or not code.isdigit() or len(code) != 3:
        raise BadResponse("The answer is not HTTP.")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise BadResponse("A header line has no colon.")
        key = name.decode("latin-1").lower()
        text = value.strip().decode("latin-1")
        if key == "content-length" and headers.get(key, text) != text:
            raise BadResponse("The response has two content lengths.")
        headers[key] = text
    return version, int(code), headers


def _content_length(headers: dict[str, str]) -> int | None:
    text = headers.get("content-length")
    if text is None or "transfer-encoding" in headers:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise BadResponse("The content length is not a number.")
    return int(text)


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits.isalnum() or len(digits) > 8:
        raise BadResponse("A chunk's size is not a number.")
    try:
        return int(digits, 16)
    except ValueError as error:
        raise BadResponse("A chunk's size is not a number.") from error
