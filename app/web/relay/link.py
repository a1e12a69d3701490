"""One agent's connection, and the requests that are under way on it."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import time
from typing import Any, Final

import gevent

from app.web.relay import frames, websocket
from app.web.relay.answer import Answer, BadAnswer, parse_error
from app.web.relay.frames import HEAD, pack, pack_window
from app.web.relay.http_request import RelayRequest
from app.web.relay.outbox import Outbox
from app.web.relay.websocket import BadWebSocket, MessageReader, pack_message

log = logging.getLogger(__name__)

PING_SECONDS: Final = 15.0
SILENCE_SECONDS: Final = 45.0
MAX_STREAMS: Final = 512
# Requests wait while an agent reads slowly; who does not read at all is cut off.
REQUEST_BACKLOG_BYTES: Final = 256 * 1024
MAX_BACKLOG_BYTES: Final = 4 * 1024 * 1024

_RECEIVE_BYTES: Final = 64 * 1024
# A socket that always has data would never let others run.
_FLOOD_BYTES: Final = 16 * 1024
_LOST = "The connection to the node was lost."


class AgentLink:
    """A WebSocket on which a hub asks and an agent answers. `serve` reads it to its end."""

    def __init__(self, sock: Any, *, node_id: int, client_id: str, secret: str) -> None:
        self.node_id = node_id
        self.client_id = client_id
        self.secret = secret
        self.is_closed = False
        self.heard_at = time.monotonic()
        self.pinged_at = self.heard_at
        self._socket = sock
        self._outbox = Outbox(sock)
        self._reader = MessageReader(frames.MAX_FRAME_BYTES)
        self._answers: dict[int, Answer] = {}
        self._last_id = 0

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return not self._answers

    def is_dead(self, now: float) -> bool:
        """Whether the agent has said nothing, or taken nothing, for too long."""
        silence = max(now - self.heard_at, self._outbox.stalled_seconds(now))
        return silence > SILENCE_SECONDS

    def serve(self) -> None:
        """Read frames until the connection ends; then everything on it has failed."""
        why = _LOST
        try:
            self._read()
        except BadWebSocket as error:
            log.warning("node %s: %s", self.client_id, error)
            self.close(error.code, str(error))
        finally:
            self.is_closed = True
            self._outbox.shut()
            for answer in list(self._answers.values()):
                answer.fail("engine_unreachable", why)
            self._answers.clear()

    def open(self, request: RelayRequest, outbox: Outbox) -> Answer | None:
        """Begin a request whose answer goes to `outbox`. None when the node has no room."""
        if self.is_closed or len(self._answers) >= MAX_STREAMS:
            return None
        answer = Answer(self._next_id(), outbox, self._credit)
        self._answers[answer.stream_id] = answer
        head = {
            "method": request.method, "path": request.path, "headers": request.headers,
            "model_name": request.model_name,
        }  # fmt: skip
        self._send(pack(frames.REQUEST, answer.stream_id, json.dumps(head).encode()))
        return answer

    def send_body(self, answer: Answer, piece: bytes) -> None:
        """More of the request's body; an empty piece ends it. Waits for an agent that is slow."""
        if answer.is_done or not self._outbox.wait_for_room(REQUEST_BACKLOG_BYTES):
            return
        if not answer.is_done:
            self._send(pack(frames.REQUEST_BODY, answer.stream_id, piece))

    def cancel(self, answer: Answer) -> None:
        """Nobody wants the rest: the agent closes its connection to the engine."""
        answer.is_done = True
        if self._answers.pop(answer.stream_id, None) is not None:
            self._send(pack(frames.CANCEL, answer.stream_id))

    def ping(self, now: float) -> None:
        """Ask for a sign of life."""
        self.pinged_at = now
        self._send(pack(frames.PING, 0, b"weft"))

    def close(self, code: int, why: str) -> None:
        """End the connection; `serve` returns."""
        if self.is_closed:
            return
        self.is_closed = True
        self._outbox.put(websocket.pack_close(code, why))
        self._outbox.shut()

    def _read(self) -> None:
        feed, take = self._reader.feed, self._take
        with contextlib.suppress(OSError):
            while data := self._socket.recv(_RECEIVE_BYTES):
                self.heard_at = time.monotonic()
                for opcode, payload in feed(data):
                    if opcode == websocket.BINARY:
                        take(payload)
                    elif opcode == websocket.CLOSE:
                        return
                    elif opcode == websocket.PING:
                        self._reply(pack_message(payload, websocket.PONG))
                if len(data) > _FLOOD_BYTES:
                    gevent.sleep(0)

    def _take(self, message: bytes) -> None:
        if len(message) < HEAD.size:
            raise BadWebSocket(websocket.PROTOCOL_ERROR, "A frame has at least five bytes.")
        kind, stream_id = HEAD.unpack_from(message)
        if not 0 < kind <= frames.LAST_TYPE:
            raise BadWebSocket(websocket.PROTOCOL_ERROR, f"There is no frame type {kind}.")
        if kind == frames.PING:
            self._reply(pack_message(pack(frames.PONG, stream_id, message[HEAD.size :][:125])))
            return
        answer = self._answers.get(stream_id)
        # Frames of a stream that has just ended are normal.
        if answer is None:
            return
        try:
            self._pass_on(answer, kind, message[HEAD.size :])
        except BadAnswer as error:
            log.warning("node %s: %s", self.client_id, error)
            answer.fail("engine_broke", "The node's answer breaks the relay's protocol.")
            self.cancel(answer)

    def _pass_on(self, answer: Answer, kind: int, payload: bytes) -> None:
        if kind == frames.RESPONSE_BODY:
            answer.body(payload)
        elif kind == frames.RESPONSE:
            answer.head(payload)
        elif kind == frames.RESPONSE_END:
            answer.end()
            del self._answers[answer.stream_id]
        elif kind == frames.ERROR:
            self._fail(answer, *parse_error(payload))
        elif kind == frames.CANCEL:
            self._fail(answer, "engine_broke", "The engine broke its answer off.")

    def _fail(self, answer: Answer, reason: str, message: str) -> None:
        del self._answers[answer.stream_id]
        answer.fail(reason, message)

    def _credit(self, answer: Answer, count: int) -> None:
        if answer.stream_id in self._answers:
            self._send(pack_window(answer.stream_id, count))

    def _reply(self, data: bytes) -> None:
        """Answer what the agent may send at any rate: who only talks is cut off."""
        if self._outbox.waiting_bytes > MAX_BACKLOG_BYTES:
            raise BadWebSocket(websocket.POLICY, "The agent doesn't read.")
        self._outbox.put(data)

    def _send(self, frame: bytes) -> None:
        self._outbox.put(pack_message(frame))

    def _next_id(self) -> int:
        while True:
            self._last_id = self._last_id % frames.MAX_STREAM_ID + 1
            if self._last_id not in self._answers:
                return self._last_id


def keep_alive(sock: socket.socket) -> None:
    """Small messages go out at once, and a dead peer is noticed by the kernel too."""
    with contextlib.suppress(OSError):  # a Unix socket has no such options
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
