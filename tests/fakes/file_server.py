"""A server of one file that cuts, changes, lies and knows no ranges, as a test needs."""

from __future__ import annotations

import hashlib
import random
import threading
from dataclasses import dataclass, field

from tests.fakes.http_server import Exchange

CHUNK = 64 * 1024
CONTENT = b"GGUF" + random.Random(7).randbytes(10 * CHUNK + 123)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class FileServer:
    """Serves one file, well or badly."""

    content: bytes = CONTENT
    etag: str | None = '"one"'
    has_ranges: bool = True
    cut_after: dict[int, int] = field(default_factory=dict)  # n-th answer: bytes sent
    status: int | None = None
    sent_bytes: int = 0
    answers: int = 0
    pauses: threading.Event | None = None

    def handle(self, exchange: Exchange) -> None:
        self.answers += 1
        number = self.answers
        if self.status is not None:
            exchange.respond(self.status)
            return
        headers = exchange.request.headers
        span = headers.get("range") if self.has_ranges else None
        if_range = headers.get("if-range")
        if if_range is not None and if_range != self.etag:
            span = None
        start, end = 0, len(self.content)
        if span:
            first, last = span.removeprefix("bytes=").split("-")
            start, end = int(first), min(int(last) + 1, end)
        if start >= len(self.content):
            exchange.respond(416)
            return
        lines = [f"HTTP/1.1 {206 if span else 200} Said", f"content-length: {end - start}"]
        if span:
            lines.append(f"content-range: bytes {start}-{end - 1}/{len(self.content)}")
        if self.etag:
            lines.append(f"etag: {self.etag}")
        exchange.send(("\r\n".join(lines) + "\r\n\r\n").encode())
        body = self.content[start:end]
        if self.pauses is not None and number > 1:
            exchange.send(body[:1000])
            self.pauses.wait(20)
            body = body[1000:]
        if number in self.cut_after:
            body = body[: self.cut_after[number]]
            exchange.cut()
        self.sent_bytes += len(body)
        exchange.send(body)
