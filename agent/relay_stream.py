"""One relayed request: from the hub's frames to the engine on loopback, and back."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any
from urllib.parse import unquote

from agent.engine_http import open_connection, path_on
from agent.launchers.base import EngineAddress
from agent.relay_frames import INITIAL_WINDOW_BYTES, LARGEST_BODY_PIECE, FrameType, pack

CONNECT_SECONDS = 5.0
# The hub has its own, shorter patience; this only frees what nobody waits for any more.
SILENCE_SECONDS = 900.0
LARGEST_REQUEST_BYTES = 64 * 1024 * 1024

_READ_ONLY_PATHS = frozenset({"/health", "/info", "/props", "/slots"})
_GENERATING_PATHS = frozenset({"/", "/generate", "/generate_stream", "/tokenize"})
# Engines that load code or files on request do so here.
_REFUSED_PATHS = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")

_DROPPED_REQUEST_HEADERS = frozenset(
    {
        "host", "connection", "keep-alive", "proxy-connection", "proxy-authorization", "te",
        "trailer", "transfer-encoding", "upgrade", "content-length", "accept-encoding", "expect",
        "cookie",
    }
)  # fmt: skip
_DROPPED_RESPONSE_HEADERS = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "te", "trailer", "transfer-encoding", "upgrade"}
)  # fmt: skip

Send = Callable[[bytes], None]
Find = Callable[[str], EngineAddress | None]


class Cancelled(Exception):
    """The hub, or the agent, doesn't want the rest."""


def is_allowed(method: str, path: str) -> bool:
    """Whether the hub may have this of an engine: inference and looking, nothing else."""
    plain = path.split("?", 1)[0]
    if not plain.startswith("/") or re.search(r"[\x00-\x20\x7f#\\]", path):
        return False
    decoded = unquote(plain)
    if (
        "//" in decoded
        or "%" in decoded
        or any(part in {".", ".."} for part in decoded.split("/"))
    ):
        return False
    if decoded in _READ_ONLY_PATHS:
        return method == "GET"
    if decoded in _GENERATING_PATHS:
        return method in {"GET", "POST"}
    is_listed = decoded.startswith("/v1/") and not decoded.startswith(_REFUSED_PATHS)
    return is_listed and method in {"GET", "POST"}


class RelayStream:
    """One request. Frames come in from the reader's thread; `run` has a thread of its own."""

    def __init__(
        self, stream_id: int, request: dict[str, Any], *, send: Send, find: Find
    ) -> None:
        self._id = stream_id
        self._request = request
        self._send = send
        self._find = find
        self._body = bytearray()
        self._is_body_whole = False
        self._window = INITIAL_WINDOW_BYTES
        self._is_cancelled = False
        self._socket: socket.socket | None = None
        self._changed = threading.Condition()

    def add_body(self, piece: bytes) -> None:
        """More of the request's body; an empty piece is its end."""
        with self._changed:
            self._body += piece
            self._is_body_whole = self._is_body_whole or not piece
            if len(self._body) > LARGEST_REQUEST_BYTES:
                self._is_cancelled = True
            self._changed.notify_all()

    def widen(self, count: int) -> None:
        """The hub takes `count` more bytes of the answer."""
        with self._changed:
            self._window += count
            self._changed.notify_all()

    def cancel(self) -> None:
        """Stop at once: the engine's connection is closed, which frees its slot."""
        with self._changed:
            self._is_cancelled = True
            self._shut_socket()
            self._changed.notify_all()

    def run(self) -> None:
        """Do it all. Raises OSError when the hub's connection is gone."""
        connection: HTTPConnection | None = None
        try:
            method, path, address = self._checked()
            body = self._wait_for_body()
            connection = self._connect(address)
            self._ask(connection, method, path, body, address)
            self._answer(connection.getresponse())
        except Cancelled:
            pass
        except _Refused as refused:
            self._refuse(refused)
        except _EngineGone as gone:
            self._send_cancel(str(gone))
        except (OSError, HTTPException) as error:
            if not self._is_cancelled:
                # What came was no HTTP: something is there, but no engine in its senses.
                is_away = isinstance(error, OSError)
                reason = "engine_unreachable" if is_away else "engine_broke"
                self._send_error(reason, f"The engine doesn't answer: {error!r}")
        finally:
            if connection is not None:
                connection.close()
            with self._changed:
                self._socket = None

    def _checked(self) -> tuple[str, str, EngineAddress]:
        method = str(self._request.get("method", "")).upper()
        path = str(self._request.get("path", ""))
        if not is_allowed(method, path):
            raise _Refused(403, "This path isn't relayed.")
        address = self._find(str(self._request.get("model_name", "")))
        if address is None:
            raise _Refused(0, "No engine on this node serves that model now.")
        return method, path, address

    def _wait_for_body(self) -> bytes:
        with self._changed:
            done = self._changed.wait_for(
                lambda: self._is_body_whole or self._is_cancelled, SILENCE_SECONDS
            )
            if self._is_cancelled or not done:
                raise Cancelled
            return bytes(self._body)

    def _connect(self, address: EngineAddress) -> HTTPConnection:
        connection = open_connection(address.base_url, timeout=CONNECT_SECONDS)
        connection.connect()
        connected: socket.socket = connection.sock
        connected.settimeout(SILENCE_SECONDS)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._changed:
            self._socket = connected
            if self._is_cancelled:
                self._shut_socket()
        return connection

    def _ask(
        self,
        connection: HTTPConnection,
        method: str,
        path: str,
        body: bytes,
        address: EngineAddress,
    ) -> None:
        headers = self._request.get("headers")
        kept = {
            str(name): str(value)
            for name, value in (headers.items() if isinstance(headers, dict) else ())
            if str(name).lower() not in _DROPPED_REQUEST_HEADERS
        }
        if address.api_key:
            # The engine's key stays on this machine: it is put in here.
            kept = {
                name: value for name, value in kept.items() if name.lower() != "authorization"
            }
            kept["Authorization"] = f"Bearer {address.api_key}"
        kept["Accept-Encoding"] = "identity"
        kept["Connection"] = "close"
        connection.request(method, path_on(address.base_url, path), body or None, kept)

    def _answer(self, response: HTTPResponse) -> None:
        headers = {
            name: value
            for name, value in response.getheaders()
            if name.lower() not in _DROPPED_RESPONSE_HEADERS
        }
        head = {"status": response.status, "headers": headers}
        self._emit(FrameType.RESPONSE, json.dumps(head).encode())
        while piece := self._read(response):
            while piece:
                room = self._room()
                self._emit(FrameType.RESPONSE_BODY, piece[:room])
                piece = piece[room:]
        if response.length:
            raise _EngineGone("The engine's answer is cut short.")
        self._emit(FrameType.RESPONSE_END)

    def _read(self, response: HTTPResponse) -> bytes:
        """What is readable now, at least one byte; empty at the end of the answer."""
        try:
            return response.read1(LARGEST_BODY_PIECE)
        except (OSError, HTTPException) as error:
            if self._is_cancelled:
                raise Cancelled from error
            raise _EngineGone(f"The engine broke off: {error!r}") from error

    def _room(self) -> int:
        """Wait for, and take, at most one piece of the window."""
        with self._changed:
            done = self._changed.wait_for(
                lambda: self._window > 0 or self._is_cancelled, SILENCE_SECONDS
            )
            if self._is_cancelled or not done:
                raise Cancelled
            return min(self._window, LARGEST_BODY_PIECE)

    def _emit(self, kind: FrameType, payload: bytes = b"") -> None:
        with self._changed:
            if self._is_cancelled:
                raise Cancelled
            if kind is FrameType.RESPONSE_BODY:
                self._window -= len(payload)
        self._send(pack(kind, self._id, payload))

    def _refuse(self, refused: _Refused) -> None:
        if not refused.status:
            self._send_error("engine_unreachable", str(refused))
            return
        body = json.dumps({"error": str(refused)}).encode()
        head = {"status": refused.status, "headers": {"Content-Type": "application/json"}}
        with contextlib.suppress(Cancelled):
            self._emit(FrameType.RESPONSE, json.dumps(head).encode())
            self._emit(FrameType.RESPONSE_BODY, body)
            self._emit(FrameType.RESPONSE_END)

    def _send_error(self, reason: str, message: str) -> None:
        payload = json.dumps({"reason": reason, "message": message[:500]}).encode()
        with contextlib.suppress(Cancelled):
            self._emit(FrameType.ERROR, payload)

    def _send_cancel(self, reason: str) -> None:
        with contextlib.suppress(Cancelled):
            self._emit(FrameType.CANCEL, reason[:500].encode())

    def _shut_socket(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


class _Refused(Exception):
    """Not sent to the engine. `status` 0: no engine is there to answer with one."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _EngineGone(Exception):
    """The engine went away in the middle of its answer."""
