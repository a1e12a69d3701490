"""Sending without waiting: at once what the socket takes, the rest by a greenlet of its own.

Whoever reads one connection and writes to many must never stand still for a slow one, and a
token must not cost the switch to another greenlet.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event


class Outbox:
    """What goes out on one socket. `on_broken` is called once, when it can't be sent."""

    __slots__ = (
        "_is_broken",
        "_is_flushing",
        "_moved_at",
        "_on_broken",
        "_on_empty",
        "_raw",
        "_socket",
        "_waiting",
        "room",
        "waiting_bytes",
    )  # fmt: skip

    def __init__(
        self,
        sock: Any,
        *,
        on_broken: Callable[[], None] | None = None,
        on_empty: Callable[[], None] | None = None,
    ) -> None:
        self._socket = sock
        # The plain socket below gevent's never waits. TLS has no such thing.
        self._raw = None if isinstance(sock, ssl.SSLSocket) else getattr(sock, "_sock", sock)
        self._waiting: deque[bytes] = deque()
        self._is_flushing = False
        self._is_broken = False
        self._on_broken = on_broken
        self._on_empty = on_empty
        self._moved_at = 0.0
        self.waiting_bytes = 0
        self.room = Event()
        self.room.set()

    def stalled_seconds(self, now: float) -> float:
        """For how long the other side has taken nothing of what waits."""
        return now - self._moved_at if self.waiting_bytes else 0.0

    def put(self, data: bytes) -> None:
        """Send, or keep until it can be sent. Never waits."""
        if self._is_broken:
            return
        if not self._is_flushing and self._raw is not None:
            try:
                sent = self._raw.send(data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._break()
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._waiting.append(data)
        self.waiting_bytes += len(data)
        self.room.clear()
        if not self._is_flushing:
            self._is_flushing = True
            self._moved_at = time.monotonic()
            gevent.spawn(self._flush)

    def wait_for_room(self, limit_bytes: int) -> bool:
        """Wait until at most so much waits; False when the connection is broken."""
        while self.waiting_bytes > limit_bytes and not self._is_broken:
            self.room.wait()
        return not self._is_broken

    def shut(self) -> None:
        """End the connection; whoever reads it or waits for it is woken."""
        self._is_broken = True
        self.room.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _flush(self) -> None:
        try:
            while self._waiting and not self._is_broken:
                data = self._waiting.popleft()
                self._socket.sendall(data)
                self.waiting_bytes -= len(data)
                self._moved_at = time.monotonic()
        except OSError:
            self._break()
        finally:
            self._is_flushing = False
            if self._is_broken:
                self._waiting.clear()
                self.waiting_bytes = 0
            self.room.set()
        if self._on_empty is not None and not self._is_broken:
            self._on_empty()

    def _break(self) -> None:
        if self._is_broken:
            return
        self.shut()
        if self._on_broken is not None:
            self._on_broken()
