"""The hub's end of the relay: a WebSocket server that sends requests as frames."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import simple_websocket

REQUEST, REQUEST_BODY, RESPONSE, RESPONSE_BODY, RESPONSE_END = 1, 2, 3, 4, 5
CANCEL, WINDOW, ERROR, PING, PONG = 6, 7, 8, 9, 10


class FakeRelayHub:
    """Takes one agent at a time; `frames` are all that came, `ask` sends a request."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, int, bytes]] = []
        self.tokens: list[str] = []
        self.refuse_with: list[int] = []
        self.answers_pings = True
        self.connections = 0
        self._next_stream = 0
        self._socket: Any = None
        self._changed = threading.Condition()

    def __enter__(self) -> FakeRelayHub:
        """Listen on its own. Without that, another server hands it connections by `upgrade`."""
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.relay = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.drop()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait_for_agent(self, count: int = 1, *, seconds: float = 60.0) -> None:
        """Wait until the agent is connected for the `count`-th time."""
        with self._changed:
            done = self._changed.wait_for(
                lambda: self.connections >= count and self._socket is not None, seconds
            )
        assert done, f"{self.connections} of {count} connections"

    def drop(self) -> None:
        """Cut the agent off."""
        connection = self._socket
        if connection is not None:
            with contextlib.suppress(simple_websocket.ConnectionClosed):
                connection.close()

    def send(self, kind: int, stream: int, payload: bytes = b"") -> None:
        """Send one frame."""
        self._socket.send(struct.pack("!BI", kind, stream) + payload)

    def ask(
        self,
        path: str = "/v1/chat/completions",
        *,
        method: str = "POST",
        model_name: str = "tiny",
        body: bytes = b"{}",
        headers: dict[str, str] | None = None,
    ) -> int:
        """Send a whole request; the answer is its stream id."""
        self._next_stream += 1
        stream = self._next_stream
        request = {
            "method": method,
            "path": path,
            "headers": headers or {"Content-Type": "application/json"},
            "model_name": model_name,
        }
        self.send(REQUEST, stream, json.dumps(request).encode())
        if body:
            self.send(REQUEST_BODY, stream, body)
        self.send(REQUEST_BODY, stream)
        return stream

    def widen(self, stream: int, count: int) -> None:
        """Let the agent send `count` more bytes of an answer."""
        self.send(WINDOW, stream, struct.pack("!I", count))

    def of(self, stream: int, kind: int | None = None) -> list[tuple[int, int, bytes]]:
        """The frames of a stream so far, of one kind if given."""
        with self._changed:
            return [
                frame
                for frame in self.frames
                if frame[1] == stream and (kind is None or frame[0] == kind)
            ]

    def body(self, stream: int) -> bytes:
        """The answer's bytes so far."""
        return b"".join(frame[2] for frame in self.of(stream, RESPONSE_BODY))

    def wait_for(
        self, stream: int, kind: int, *, count: int = 1, seconds: float = 60.0
    ) -> bytes:
        """Wait for frames of a kind; the payload of the `count`-th."""
        found: list[Any] = []

        def enough() -> bool:
            found[:] = [f for f in self.frames if f[1] == stream and f[0] == kind]
            return len(found) >= count

        with self._changed:
            done = self._changed.wait_for(enough, seconds)
        assert done, f"no frame {kind} on {stream}: {[f[:2] for f in self.frames[-20:]]}"
        payload: bytes = found[count - 1][2]
        return payload

    def wait_until(self, is_right: Callable[[], bool], *, seconds: float = 60.0) -> None:
        """Wait until something about the frames is true."""
        with self._changed:
            done = self._changed.wait_for(is_right, seconds)
        assert done, "it didn't come true"

    def serve(self, environment: dict[str, Any], token: str) -> None:
        """Read one agent's frames until it goes."""
        connection = simple_websocket.Server(environment)
        with self._changed:
            self.tokens.append(token)
            self._socket = connection
            self.connections += 1
            self._changed.notify_all()
        try:
            while True:
                data = connection.receive()
                kind, stream = struct.unpack("!BI", data[:5])
                if kind == PING and self.answers_pings:
                    connection.send(struct.pack("!BI", PONG, stream) + data[5:])
                with self._changed:
                    self.frames.append((kind, stream, data[5:]))
                    self._changed.notify_all()
        except simple_websocket.ConnectionClosed:
            pass
        finally:
            with self._changed:
                if self._socket is connection:
                    self._socket = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    relay: FakeRelayHub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Upgrade, or refuse as ordered."""
        assert isinstance(self.server, _Server)
        upgrade(self, self.server.relay)

    def log_message(self, *_args: Any) -> None:
        """Say nothing: the frames are recorded."""


def upgrade(handler: BaseHTTPRequestHandler, relay: FakeRelayHub) -> None:
    """Make a relay of one HTTP request, or refuse it as ordered."""
    handler.close_connection = True
    token = handler.headers.get("Authorization", "").removeprefix("Bearer ")
    if handler.path != "/agent/v1/relay" or relay.refuse_with:
        handler.send_response(relay.refuse_with.pop() if relay.refuse_with else 404)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    environment = {
        f"HTTP_{name.upper().replace('-', '_')}": value
        for name, value in handler.headers.items()
    }
    # As any hub should: a request is several small frames, and Nagle would hold them for 40 ms.
    handler.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    relay.serve({**environment, "werkzeug.socket": handler.connection}, token)
