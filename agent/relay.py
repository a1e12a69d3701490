"""The relay: an outbound WebSocket to the hub, on which the hub asks this node's engines."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from agent import VERSION
from agent.backoff import Backoff
from agent.hub import HubClient, HubRefused, HubUnavailable, NotEnrolled
from agent.relay_frames import BadFrame, FrameType, pack, unpack, window_bytes
from agent.relay_stream import Find, RelayStream

log = logging.getLogger(__name__)

STREAMS_AT_ONCE = 512
STACK_BYTES = 256 * 1024
PING_SECONDS = 15.0
SILENCE_SECONDS = 45.0
NOT_OFFERED_RETRY_SECONDS = 60.0
ENROLLED_CHECK_SECONDS = 0.1

_starting = threading.Lock()


class RelayLost(Exception):
    """The connection ended or never came up; try again."""


class RelayClient:
    """Keeps the relay connected for as long as the agent runs."""

    def __init__(
        self,
        hub: HubClient,
        *,
        find: Find,
        ca_file: str | None = None,
        on_fatal: Callable[[NotEnrolled], None] = lambda error: None,
        ping_seconds: float = PING_SECONDS,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        self._hub = hub
        self._find = find
        self._ca_file = ca_file
        self._on_fatal = on_fatal
        self._ping_seconds = ping_seconds
        self._silence_seconds = silence_seconds
        self._stopping = threading.Event()
        self._link: _Link | None = None
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    @property
    def is_connected(self) -> bool:
        """Whether the hub can reach this node's engines now."""
        return self._link is not None

    def start(self) -> None:
        """Connect, and stay connected, in a thread of its own."""
        self._thread.start()

    def stop(self, seconds: float = 2.0) -> None:
        """Close the connection and end what runs over it."""
        self._stopping.set()
        link = self._link
        if link is not None:
            link.close()
        self._thread.join(seconds)

    def _run(self) -> None:
        backoff = Backoff(first=1.0, cap=15.0)
        while not self._stopping.is_set():
            at_least = 0.0
            try:
                self._serve_once(backoff)
            except RelayLost as lost:
                log.info("The relay is down: %s", lost)
            except HubUnavailable as error:
                log.info("The relay is down: %s", error)
                at_least = error.retry_after_seconds
            except HubRefused as error:
                log.warning("The hub offers no relay to this node: %s", error)
                at_least = NOT_OFFERED_RETRY_SECONDS
            except NotEnrolled as error:
                self._on_fatal(error)
                return
            self._stopping.wait(backoff.next(at_least=at_least))

    def _serve_once(self, backoff: Backoff) -> None:
        while (token := self._hub.identity.node_token) is None:
            if self._stopping.wait(ENROLLED_CHECK_SECONDS):
                return
        web_socket = self._connect(token)
        link = _Link(
            web_socket,
            find=self._find,
            ping_seconds=self._ping_seconds,
            silence_seconds=self._silence_seconds,
        )
        self._link = link
        log.info("The relay is up.")
        backoff.reset()
        try:
            if not self._stopping.is_set():
                link.serve()
        finally:
            self._link = None
            link.close()

    def _connect(self, token: str) -> Any:
        """A connected WebSocket. Raises RelayLost, HubUnavailable, HubRefused, NotEnrolled."""
        import websocket  # here, so that an agent without relay stays smaller

        hub = self._hub.identity.hub
        url = "ws" + hub.removeprefix("http") + "/agent/v1/relay"
        is_local = urlsplit(hub).hostname in {"127.0.0.1", "localhost", "::1"}
        try:
            connection = websocket.create_connection(
                url,
                timeout=10.0,
                header=[f"Authorization: Bearer {token}", f"User-Agent: weft-agent/{VERSION}"],
                suppress_origin=True,
                sockopt=((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),),
                sslopt={"ca_certs": self._ca_file, "cert_reqs": ssl.CERT_REQUIRED}
                if self._ca_file
                else {},
                http_no_proxy=["*"] if is_local else None,
                # A redirect would carry the node token to wherever it points.
                redirect_limit=0,
                skip_utf8_validation=True,
            )
        except websocket.WebSocketBadStatusException as error:
            self._refused(error.status_code, error.resp_headers or {}, token)
            raise RelayLost(f"the hub answered {error.status_code}") from error
        except (websocket.WebSocketException, OSError) as error:
            raise RelayLost(str(error) or type(error).__name__) from error
        connection.settimeout(None)
        return connection

    def _refused(self, status: int, headers: dict[str, str], token: str) -> None:
        """What a refused handshake means."""
        if status == 401:
            self._hub.recover(token)
        elif status in {429, 503}:
            asked = str(headers.get("retry-after", "0"))
            wait = float(asked) if asked.isdigit() else 0.0
            raise HubUnavailable(f"the hub answered {status}", retry_after_seconds=wait)
        elif status < 500:
            raise HubRefused(f"status {status}", status=status)


class _Link:
    """One live connection and the requests that run over it."""

    def __init__(
        self, web_socket: Any, *, find: Find, ping_seconds: float, silence_seconds: float
    ) -> None:
        self._web_socket = web_socket
        self._find = find
        self._ping_seconds = ping_seconds
        self._silence_seconds = silence_seconds
        self._send_lock = threading.Lock()
        self._streams: dict[int, RelayStream] = {}
        self._streams_lock = threading.Lock()
        self._closed = threading.Event()
        self._heard = time.monotonic()

    def serve(self) -> None:
        """Read frames until the connection ends. Raises RelayLost, always."""
        keeper = threading.Thread(target=self._keep_alive, name="relay-ping", daemon=True)
        keeper.start()
        try:
            while True:
                data = self._receive()
                self._heard = time.monotonic()
                kind, stream_id, payload = unpack(data)
                self._handle(kind, stream_id, payload)
        except BadFrame as error:
            raise RelayLost(f"the hub speaks another protocol: {error}") from error
        finally:
            self.close()
            keeper.join(1.0)

    def close(self) -> None:
        """End the connection and everything on it."""
        self._closed.set()
        with self._streams_lock:
            streams = list(self._streams.values())
        for stream in streams:
            stream.cancel()
        # A plain close could wait for a peer that is gone; shut down wakes every thread.
        with contextlib.suppress(OSError, AttributeError):
            self._web_socket.sock.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._web_socket.shutdown()

    def _receive(self) -> bytes:
        import websocket

        try:
            opcode, data = self._web_socket.recv_data()
        except (websocket.WebSocketException, OSError, AttributeError) as error:
            raise RelayLost(str(error) or type(error).__name__) from error
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            raise RelayLost("the hub closed it")
        if opcode != websocket.ABNF.OPCODE_BINARY:
            raise RelayLost("the hub sent text")
        return bytes(data)

    def _send(self, frame: bytes) -> None:
        """Send one frame; raises OSError when the connection is gone."""
        import websocket

        with self._send_lock:
            try:
                self._web_socket.send_binary(frame)
            except (websocket.WebSocketException, AttributeError) as error:
                raise OSError(str(error)) from error

    def _handle(self, kind: FrameType, stream_id: int, payload: bytes) -> None:
        if kind is FrameType.PING:
            with contextlib.suppress(OSError):
                self._send(pack(FrameType.PONG, stream_id, payload))
            return
        if kind is FrameType.REQUEST:
            self._open(stream_id, payload)
            return
        with self._streams_lock:
            stream = self._streams.get(stream_id)
        # Frames of a stream that has just ended are normal.
        if stream is None:
            return
        if kind is FrameType.REQUEST_BODY:
            stream.add_body(payload)
        elif kind is FrameType.WINDOW:
            stream.widen(window_bytes(payload))
        elif kind is FrameType.CANCEL:
            stream.cancel()

    def _open(self, stream_id: int, payload: bytes) -> None:
        try:
            request = json.loads(payload)
        except ValueError as error:
            raise BadFrame("A request's payload is JSON.") from error
        if not isinstance(request, dict):
            raise BadFrame("A request's payload is a JSON object.")
        stream = RelayStream(stream_id, request, send=self._send, find=self._find)
        with self._streams_lock:
            is_known = stream_id in self._streams
            is_full = len(self._streams) >= STREAMS_AT_ONCE
            if not is_known and not is_full:
                self._streams[stream_id] = stream
        if is_known:
            raise BadFrame(f"Stream {stream_id} is open already.")
        if is_full:
            body = {"reason": "engine_overloaded", "message": "This node has no room now."}
            with contextlib.suppress(OSError):
                self._send(pack(FrameType.ERROR, stream_id, json.dumps(body).encode()))
            return
        _start_small_thread(lambda: self._run_stream(stream_id, stream))

    def _run_stream(self, stream_id: int, stream: RelayStream) -> None:
        try:
            stream.run()
        except OSError:
            log.debug("Stream %d lost its connection to the hub.", stream_id)
        finally:
            with self._streams_lock:
                self._streams.pop(stream_id, None)

    def _keep_alive(self) -> None:
        while not self._closed.wait(self._ping_seconds):
            if time.monotonic() - self._heard > self._silence_seconds:
                log.warning("The relay was silent for too long; connecting again.")
                self.close()
                return
            with contextlib.suppress(OSError):
                self._send(pack(FrameType.PING, 0, b"weft"))


def _start_small_thread(work: Callable[[], None]) -> None:
    """A thread with a small stack: there may be 512 of them, and they only copy bytes."""
    with _starting:
        before = threading.stack_size(STACK_BYTES)
        try:
            threading.Thread(target=work, name="relay-stream", daemon=True).start()
        finally:
            threading.stack_size(before)
