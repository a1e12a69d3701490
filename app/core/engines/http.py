"""A pooled HTTP/1.1 client on plain sockets, for the per-token path.

Works the same with threads and under gevent's monkey-patching. It does what engines need
and no more: no redirects, no cookies, no compression, no proxies. Everything that the other
side sends is bounded: header bytes, one line, the whole body, and the time to wait for it.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from app.core.engines import pump
from app.core.engines.http_response import (
    MAX_HEADER_BYTES,
    BadResponse,
    ConnectFailed,
    ConnectionLost,
    HttpFailure,
    Response,
    TimedOut,
    parse_head,
)
from app.core.urls import Url

__all__ = [
    "BadResponse",
    "ConnectFailed",
    "ConnectionLost",
    "Connector",
    "HttpClient",
    "HttpFailure",
    "Request",
    "Response",
    "TimedOut",
]

MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_IDLE_PER_ADDRESS = 64
MAX_IDLE_SECONDS = 60.0

_RECEIVE_BYTES = 64 * 1024
# Under gevent a socket that always has data never lets others run. Tokens come in far
# smaller blocks than this; who sends so much at once makes room for the rest after each.
_FLOOD_BYTES = 16 * 1024
# The header, the role and the first token may come apart; after these an answer flows.
_PROMPT_BLOCKS = 3


class Connector(Protocol):
    """Opens a TCP connection; this is where the outbound address check sits."""

    def __call__(self, host: str, port: int, timeout: float) -> socket.socket: ...


@dataclass(frozen=True, slots=True)
class Request:
    """What to send. `via` (`host:port` or `unix:/path`) is a relay of our own to connect to
    instead of the URL's host: it is trusted, so neither the address check nor TLS applies."""

    url: Url
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    via: str | None = None
    connect_timeout_seconds: float = 5.0
    response_timeout_seconds: float = 60.0
    max_body_bytes: int = MAX_BODY_BYTES


class HttpClient:
    """Sends requests over kept-alive connections, one pool per address."""

    def __init__(self, connector: Connector, *, tls: ssl.SSLContext | None = None) -> None:
        self._connector = connector
        self._tls = tls
        self._tls_lock = threading.Lock()
        self._idle: dict[tuple[str, str, int], deque[_Connection]] = {}

    def send(self, request: Request) -> Response:
        """Send and return the response once its header is there; the body is read later.

        The response must be read to its end or closed. Raises HttpFailure. A kept-alive
        connection that turns out dead before it answered is replaced once by a fresh one.
        """
        head = _request_head(request)
        deadline = monotonic() + request.response_timeout_seconds
        kept = self._take_idle(_pool_key(request))
        if kept is not None:
            try:
                return self._exchange(kept, request, head, deadline)
            except ConnectionLost:
                if kept.received:
                    raise
        return self._exchange(self._connect(request), request, head, deadline)

    def close(self) -> None:
        """Close all idle connections. Those in use are closed when their response is."""
        for connections in list(self._idle.values()):
            while connections:
                connections.pop().close()

    def _exchange(
        self, connection: _Connection, request: Request, head: bytes, deadline: float
    ) -> Response:
        try:
            return connection.exchange(request, head, deadline)
        except BaseException:
            connection.close()
            raise

    def _take_idle(self, key: tuple[str, str, int]) -> _Connection | None:
        connections = self._idle.get(key)
        oldest = monotonic() - MAX_IDLE_SECONDS
        while connections:
            try:
                connection = connections.pop()
            except IndexError:  # another thread was faster
                return None
            if connection.idle_since > oldest and connection.is_quiet():
                return connection
            connection.close()
        return None

    def _keep(self, key: tuple[str, str, int], connection: _Connection) -> None:
        connections = self._idle.setdefault(key, deque())
        connection.idle_since = monotonic()
        connections.append(connection)
        if len(connections) > MAX_IDLE_PER_ADDRESS:
            connections.popleft().close()

    def _connect(self, request: Request) -> _Connection:
        key = _pool_key(request)
        timeout = request.connect_timeout_seconds
        try:
            if request.via is not None:
                sock = _connect_relay(request.via, timeout)
            else:
                sock = self._connector(request.url.host, request.url.port, timeout)
                if request.url.scheme == "https":
                    sock = self._wrap_tls(sock, request.url.host)
        except TimeoutError as error:
            raise ConnectFailed("The connection could not be made in time.") from error
        except OSError as error:
            raise ConnectFailed(f"The connection failed: {error}") from error
        return _Connection(sock, lambda connection: self._keep(key, connection))

    def _wrap_tls(self, sock: socket.socket, host: str) -> socket.socket:
        with self._tls_lock:
            if self._tls is None:
                self._tls = ssl.create_default_context()
        try:
            return self._tls.wrap_socket(sock, server_hostname=host)
        except BaseException:
            sock.close()
            raise


class _Connection:
    """One socket, and how many bytes of the present response have come from it."""

    __slots__ = ("_blocks", "_keep", "_pumped", "_sock", "_watched", "idle_since", "received")

    def __init__(self, sock: socket.socket, keep: Callable[[_Connection], None]) -> None:
        self._sock = sock
        self._watched = pump.watch(sock)
        self._pumped: pump.Watched | None = None
        self._blocks = 0
        self._keep = keep
        self.idle_since = 0.0
        self.received = 0

    def exchange(self, request: Request, head: bytes, deadline: float) -> Response:
        """Send the request and read the response's header."""
        self.received = 0
        # A pooled connection may have been opened by another thread than it is used in now.
        watched = self._watched
        self._pumped = watched if watched is not None and pump.is_here(watched) else None
        self._blocks = 0
        if self._pumped is not None:
            self._pumped.set_flowing(False)
        sent = self._send(head, request.body or b"", deadline)
        try:
            return self._read_head(request, deadline)
        except ConnectionLost as error:
            raise (ConnectionLost(f"Sending failed: {sent}") if sent else error) from error

    def receive(self, deadline: float) -> bytes:
        """What is there next, b"" at the end. Raises TimedOut at the deadline."""
        try:
            if self._pumped is not None:
                data = self._pumped.receive(_RECEIVE_BYTES, deadline)
                self._blocks += 1
                if self._blocks == _PROMPT_BLOCKS:
                    self._pumped.set_flowing(True)
            else:
                data = self._receive_alone(deadline)
        except TimeoutError as error:
            raise TimedOut("Nothing came in time.") from error
        except OSError as error:
            raise ConnectionLost(f"The connection broke: {error}") from error
        self.received += len(data)
        if len(data) > _FLOOD_BYTES:
            time.sleep(0)
        return data

    def _receive_alone(self, deadline: float) -> bytes:
        left = deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._sock.recv(_RECEIVE_BYTES)

    def is_quiet(self) -> bool:
        """Whether an idle connection is still open, with nothing waiting to be read."""
        if isinstance(self._sock, ssl.SSLSocket):
            return True  # can't peek through TLS; the retry in `send` covers a dead one
        try:
            self._sock.settimeout(0)
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def keep(self) -> None:
        self._keep(self)

    def close(self) -> None:
        if self._watched is not None:
            self._watched.close()
        self._sock.close()

    def _send(self, head: bytes, body: bytes, deadline: float) -> OSError | None:
        # A server may refuse early (413) and close while we still send: its answer counts,
        # so a failure to send is only reported when there is nothing to read either.
        try:
            self._sock.settimeout(max(deadline - monotonic(), 0.001))
            self._sock.sendall(head + body)
        except TimeoutError as error:
            raise TimedOut("The request could not be sent in time.") from error
        except OSError as error:
            return error
        return None

    def _read_head(self, request: Request, deadline: float) -> Response:
        data = bytearray()
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > MAX_HEADER_BYTES:
                    raise BadResponse("The response's header is too long.")
                block = self.receive(deadline)
                if not block:
                    raise ConnectionLost("The connection was closed without an answer.")
                data += block
                continue
            version, status, headers = parse_head(bytes(data[:end]))
            del data[: end + 4]
            if status >= 200:
                break
        return Response(
            self,
            status=status,
            headers=headers,
            rest=bytes(data),
            deadline=deadline,
            max_bytes=request.max_body_bytes,
            version=version,
        )


def _pool_key(request: Request) -> tuple[str, str, int]:
    if request.via is not None:
        return ("relay", request.via, 0)
    return (request.url.scheme, request.url.host, request.url.port)


def _connect_relay(via: str, timeout: float) -> socket.socket:
    if via.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect(via.removeprefix("unix:"))
        except BaseException:
            sock.close()
            raise
        return sock
    host, _, port = via.rpartition(":")
    sock = socket.create_connection((host.strip("[]"), int(port)), timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _request_head(request: Request) -> bytes:
    lines = [
        f"{request.method} {request.url.target} HTTP/1.1",
        f"Host: {request.url.authority}",
        "Accept-Encoding: identity",
    ]
    for name, value in request.headers:
        if not _is_header_safe(name) or not _is_header_safe(value):
            raise BadResponse(f"The header {name!r} holds a character that may not be sent.")
        lines.append(f"{name}: {value}")
    if request.body is not None:
        lines.append(f"Content-Length: {len(request.body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


def _is_header_safe(text: str) -> bool:
    return "\r" not in text and "\n" not in text and "\0" not in text
