"""A real HTTP server on a free port, for fakes that must control every byte they send."""

from __future__ import annotations

import json
import select
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class ClientGone(Exception):
    """The client closed the connection while it was being answered."""


class Exchange:
    """The server's side of one request."""

    def __init__(self, server: FakeServer, sock: socket.socket, request: Received) -> None:
        self.request = request
        self.keeps_alive = True
        self._server = server
        self._sock = sock

    def send(self, data: bytes) -> None:
        """Raw bytes onto the wire."""
        if self._client_left():
            raise ClientGone
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise ClientGone from error

    def respond(
        self,
        status: int,
        body: bytes = b"",
        *,
        content_type: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> None:
        extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        kind = f"content-type: {content_type}\r\n" if body else ""
        head = f"HTTP/1.1 {status} Said\r\n{kind}{extra}content-length: {len(body)}\r\n\r\n"
        self.send(head.encode() + body)

    def respond_json(self, status: int, value: Any) -> None:
        self.respond(status, compact(value))

    def start_stream(self, content_type: str = "text/event-stream") -> None:
        self.send(
            f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncache-control: no-cache\r\n"
            "transfer-encoding: chunked\r\n\r\n".encode()
        )

    def chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def end_stream(self) -> None:
        self.send(b"0\r\n\r\n")

    def cut(self) -> None:
        """Close the connection without ending the answer."""
        self.keeps_alive = False

    def wait(self, seconds: float) -> None:
        """Let time pass, unless the server stops or the client goes (ClientGone)."""
        left = seconds
        while left > 0 and not self._server.is_stopping:
            if self._client_left(timeout=min(left, 0.02)):
                raise ClientGone
            left -= 0.02

    def wait_for(self, is_so: Callable[[], bool]) -> None:
        """Let time pass until it is so. ClientGone when the connection ends first."""
        while not is_so():
            if self._server.is_stopping or self._client_left(timeout=0.02):
                raise ClientGone

    def hang(self) -> None:
        """Say nothing more until the client goes or the server stops."""
        self.keeps_alive = False
        self.wait(60.0)

    def _client_left(self, timeout: float = 0.0) -> bool:
        ready = select.poll()  # not select(), which knows no descriptor above 1023
        ready.register(self._sock, select.POLLIN)
        if not ready.poll(timeout * 1000):
            return False
        try:
            return not self._sock.recv(1, socket.MSG_PEEK)
        except OSError:
            return True


Handler = Callable[[Exchange], None]


@dataclass
class Counts:
    """What happened at the server's side of the connections."""

    opened: int = 0
    open_now: int = 0
    cancelled: int = 0  # closed by the client while it was being answered
    closed_by_client: int = 0  # all that the client closed
    answered: int = 0
    answering: int = 0
    most_at_once: int = 0  # requests answered at the same time


@dataclass
class FakeServer:
    """Serves `handle` on 127.0.0.1, or on a Unix socket, one thread per connection."""

    handle: Handler
    unix_path: str | None = None
    host: str = "127.0.0.1"
    tls: ssl.SSLContext | None = None
    closes_after_answer: bool = False
    requests: list[Received] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    is_stopping: bool = False
    port: int = 0
    # What else a target needs to reach this server: nothing, or a relay.
    route: dict[str, Any] = field(default_factory=dict)

    def __enter__(self) -> Self:
        if self.unix_path:
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._listener.bind(self.unix_path)
        else:
            self._listener = socket.create_server((self.host, 0))
            self.port = int(self._listener.getsockname()[1])
        self._listener.listen(128)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop listening and close all connections. Safe to call twice."""
        if self.is_stopping:
            return
        self.is_stopping = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(5)
        self.drop_connections()
        for thread in self._threads:
            thread.join(5)

    @property
    def url(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    def drop_connections(self) -> None:
        """Close all connections from this side."""
        with self._lock:
            connections = list(self._open)
        for sock in connections:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.counts.opened += 1
                self.counts.open_now += 1
                self._open.add(sock)
                number = self.counts.opened
            thread = threading.Thread(target=self._serve, args=(sock, number), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket, number: int) -> None:
        sock = plain
        try:
            if self.tls:
                sock = self.tls.wrap_socket(plain, server_side=True)
            by_client = self._converse(sock, number)
        except OSError:
            by_client = True
        finally:
            with self._lock:
                self.counts.open_now -= 1
                self._open.discard(plain)
            plain.close()
            sock.close()
        with self._lock:
            self.counts.closed_by_client += by_client and not self.is_stopping

    def _converse(self, sock: socket.socket, number: int) -> bool:
        """Answer request after request. True when the client ended it."""
        while True:
            request = _read_request(sock, number)
            if request is None:
                return True
            with self._lock:
                self.requests.append(request)
                self.counts.answering += 1
                self.counts.most_at_once = max(self.counts.most_at_once, self.counts.answering)
            exchange = Exchange(self, sock, request)
            try:
                self.handle(exchange)
            except ClientGone:
                with self._lock:
                    self.counts.cancelled += 1
                return True
            finally:
                with self._lock:
                    self.counts.answering -= 1
            with self._lock:
                self.counts.answered += 1
            if self.closes_after_answer or not exchange.keeps_alive:
                return False


def compact(value: Any) -> bytes:
    """JSON as engines write it: compact, and non-ASCII as it is."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _read_request(sock: socket.socket, number: int) -> Received | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    length = int(headers.get("content-length", "0"))
    while len(body) < length:
        piece = sock.recv(65536)
        if not piece:
            return None
        body += piece
    return Received(method, path, headers, body, number)
