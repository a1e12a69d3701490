"""Where workers ask: an HTTP/1.1 server on a Unix socket, or on TCP between hosts.

One greenlet reads each connection. Answers are written by whoever reads the agent's, so that
the reader is free to notice at once that the worker has closed: that cancels the request.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gevent import socket as gevent_socket
from gevent.server import StreamServer

from app.web.relay.answer import Answer, error_response
from app.web.relay.frames import BODY_PIECE_BYTES
from app.web.relay.http_request import MAX_HEAD_BYTES, BadRequest, RelayRequest, parse_head
from app.web.relay.link import AgentLink, keep_alive
from app.web.relay.outbox import Outbox

BACKLOG: Final = 2048
# The kernel takes no longer path for a Unix socket.
MAX_UNIX_PATH_BYTES: Final = 100

Find = Callable[[str], AgentLink | None]
KeyOf = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Bound:
    """A listening socket, and the address that workers are told."""

    sock: Any
    address: str
    path: Path | None = None


def bind(folder: Path, host: str, *, pid: int) -> Bound:
    """Listen: on a Unix socket in `folder`, or on TCP when a host is named.

    The name holds a part that is never used twice: what a dead process left in the database
    must not lead to a living one. Raises OSError.
    """
    path = folder / f"relay-{pid}-{secrets.token_hex(3)}.sock"
    if host or len(bytes(path)) > MAX_UNIX_PATH_BYTES:
        return _bind_tcp(host or "127.0.0.1")
    sock = gevent_socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    path.chmod(0o600)
    sock.listen(BACKLOG)
    return Bound(sock, f"unix:{path}", path)


def _bind_tcp(host: str) -> Bound:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = gevent_socket.socket(family, socket.SOCK_STREAM)
    sock.bind((host, 0))
    sock.listen(BACKLOG)
    # Nobody can connect to "all addresses": workers are told this machine's name.
    named = socket.gethostname() if host in {"0.0.0.0", "::"} else host  # noqa: S104
    shown = f"[{named}]" if ":" in named else named
    return Bound(sock, f"{shown}:{sock.getsockname()[1]}")


def serve_workers(bound: Bound, find: Find, key_of: KeyOf) -> StreamServer:
    """Serve what workers send to `bound`; the server is started."""
    server = StreamServer(bound.sock, lambda sock, _: _Connection(sock, find, key_of).serve())
    server.start()
    return server


class _Connection:
    """A worker's kept-alive connection: one request after another."""

    def __init__(self, sock: Any, find: Find, key_of: KeyOf) -> None:
        self._socket = sock
        self._find = find
        self._key_of = key_of
        self._buffer = bytearray()
        self._outbox = Outbox(sock, on_empty=self._settle)
        self._link: AgentLink | None = None
        self._answer: Answer | None = None

    def serve(self) -> None:
        """Read requests until the worker closes."""
        keep_alive(self._socket)
        try:
            while (head := self._read_head()) is not None:
                if self._answer is not None and not self._answer.is_done:
                    raise BadRequest(400, "One request at a time.")
                self._relay(parse_head(head))
        except BadRequest as error:
            self._refuse(error)
        except OSError:
            pass  # the worker is gone
        finally:
            if self._answer is not None and self._link is not None and not self._answer.is_done:
                self._link.cancel(self._answer)
            with contextlib.suppress(OSError):
                self._socket.close()

    def _relay(self, request: RelayRequest) -> None:
        if not hmac.compare_digest(request.key.encode(), self._key_of(request.node).encode()):
            raise BadRequest(403, "The relay's key is wrong.")
        self._answer = None
        link = self._link = self._find(request.node)
        if link is None:
            self._skip(request.length)
            self._say(502, "engine_unreachable", "The node is not connected here.")
            return
        answer = self._answer = link.open(request, self._outbox)
        if answer is None:
            self._skip(request.length)
            self._say(503, "engine_overloaded", "The node's connection has no room now.")
            return
        for piece in self._pieces(request.length):
            link.send_body(answer, piece)
        link.send_body(answer, b"")

    def _read_head(self) -> bytes | None:
        """The next head; None when the worker has closed."""
        buffer, looked_at = self._buffer, 0
        while (end := buffer.find(b"\r\n\r\n", looked_at)) < 0:
            if len(buffer) > MAX_HEAD_BYTES:
                raise BadRequest(431, "The request's head is too long.")
            looked_at = max(0, len(buffer) - 3)
            data = self._socket.recv(BODY_PIECE_BYTES)
            if not data:
                return None
            buffer += data
        head = bytes(buffer[:end])
        del buffer[: end + 4]
        return head

    def _pieces(self, length: int) -> Any:
        """The body in pieces. Raises OSError when the worker closes before its end."""
        while length > 0:
            piece = bytes(self._buffer[: min(length, BODY_PIECE_BYTES)])
            del self._buffer[: len(piece)]
            if not piece:
                piece = self._socket.recv(min(length, BODY_PIECE_BYTES))
            if not piece:
                raise ConnectionResetError
            length -= len(piece)
            yield piece

    def _skip(self, length: int) -> None:
        for _ in self._pieces(length):
            pass

    def _say(self, status: int, kind: str, message: str) -> None:
        self._outbox.put(error_response(status, kind, message))

    def _refuse(self, error: BadRequest) -> None:
        if self._answer is None or self._answer.is_done:
            self._outbox.put(error_response(error.status, "relay", str(error), closes=True))

    def _settle(self) -> None:
        if self._answer is not None:
            self._answer.settle()
