"""Waiting for many engines at once under gevent: one epoll for all sockets being read.

A cooperative `recv` asks the kernel in vain, arms a watcher and a timer, and takes both down
again, for every token. Here a socket is registered once for as long as it is open, edge-
triggered; gevent watches the epoll alone, and one timer stands for the nearest deadline.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

import gevent
from gevent import monkey
from gevent import socket as gevent_socket

_EVENTS_AT_ONCE: Final = 256
_READABLE: Final = 1
_NEVER: Final = float("inf")

# So many readers make a crowd: it is looked after at short intervals, all who have got
# something together. One turn of the loop, and one write to Redis, then serve several.
_CROWD: Final = 16
_CROWD_SECONDS: Final = 0.002
_QUIET_ROUNDS: Final = 5


class Watched:
    """One socket's place in a pump: whether something may be there, and who waits for it."""

    __slots__ = ("deadline", "fd", "has_more", "is_ending", "pump", "recv", "waiter")

    def __init__(self, pump: Pump, fd: int, recv: Callable[[int], bytes]) -> None:
        self.pump = pump
        self.fd = fd
        self.recv = recv
        self.waiter: Any = None
        self.deadline = _NEVER
        self.has_more = True
        # The other side has closed its end: no further edge comes, so the end is read up to.
        self.is_ending = False

    def receive(self, size: int, deadline: float) -> bytes:
        """What is there next, b"" at the end. Raises OSError, and TimeoutError at the deadline."""
        if deadline <= monotonic():
            raise TimeoutError("Nothing came in time.")
        while True:
            if self.has_more:
                try:
                    data = self.recv(size)
                except BlockingIOError:
                    self.has_more = False
                    continue
                # Less than asked for means that nothing is left: the next edge tells.
                if len(data) < size and not self.is_ending:
                    self.has_more = False
                return data
            self.pump.wait(self, deadline)

    def close(self) -> None:
        """Give the place up, before the socket is closed. Whoever waits finds it closed."""
        self.pump.forget(self)


class Pump:
    """One per process, used in the thread of its gevent hub only."""

    def __init__(self) -> None:
        self.hub: Any = gevent.get_hub()
        self.process_id = os.getpid()
        epoll: Any = monkey.get_original("select", "epoll")
        self._epoll: select.epoll = epoll()
        self._watched: dict[int, Watched] = {}
        self._waiting: set[Watched] = set()
        self._sweep_at = _NEVER
        self._timer: Any = None
        # The watcher is kept running: it costs nothing while no engine says anything.
        self._watcher: Any = self.hub.loop.io(self._epoll.fileno(), _READABLE)
        self._watcher.start(self._dispatch)
        self._ticker: Any = self.hub.loop.timer(_CROWD_SECONDS, _CROWD_SECONDS)
        self._quiet_rounds = 0

    def watch(self, sock: gevent_socket.socket) -> Watched:
        """Register a connected socket. Raises OSError."""
        watched = Watched(self, sock.fileno(), sock._sock.recv)
        self._epoll.register(watched.fd, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
        self._watched[watched.fd] = watched
        return watched

    def wait(self, watched: Watched, deadline: float) -> None:
        """Until something may have come, or the socket is closed here. Raises TimeoutError."""
        if deadline < self._sweep_at:
            self._arm(deadline)
        watched.waiter = gevent.getcurrent()
        watched.deadline = deadline
        self._waiting.add(watched)
        try:
            self.hub.switch()
        finally:
            watched.waiter = None
            self._waiting.discard(watched)
        if not watched.has_more and deadline <= monotonic():
            raise TimeoutError("Nothing came in time.")

    def forget(self, watched: Watched) -> None:
        """Stop watching; idempotent."""
        if self._watched.get(watched.fd) is not watched:
            return
        del self._watched[watched.fd]
        self._epoll.unregister(watched.fd)
        watched.has_more = watched.is_ending = True
        if watched.waiter is not None:
            self.hub.loop.run_callback(self._resume, watched, watched.waiter)

    def _dispatch(self) -> None:
        """In the hub: the sockets that something has come for."""
        events = self._epoll.poll(0, _EVENTS_AT_ONCE)
        self._pace(len(events))
        for fd, mask in events:
            watched = self._watched.get(fd)
            if watched is None:
                continue
            watched.has_more = True
            if mask != select.EPOLLIN:
                watched.is_ending = True
            if watched.waiter is not None:
                watched.waiter.switch()

    def _pace(self, found: int) -> None:
        """Look at intervals while there is a crowd, and at every event otherwise."""
        is_crowd = len(self._waiting) >= _CROWD
        if not self._ticker.active:
            if is_crowd:
                self._quiet_rounds = 0
                self._watcher.stop()
                self._ticker.again(self._dispatch)
            return
        self._quiet_rounds = 0 if found else self._quiet_rounds + 1
        if not is_crowd or self._quiet_rounds >= _QUIET_ROUNDS:
            self._ticker.stop()
            self._watcher.start(self._dispatch)

    def _sweep(self) -> None:
        """In the hub: end the waits that are overdue, and look again at the next deadline."""
        now = monotonic()
        self._sweep_at = _NEVER
        for watched in [w for w in self._waiting if w.deadline <= now]:
            self._resume(watched, watched.waiter)
        nearest = min((watched.deadline for watched in self._waiting), default=_NEVER)
        if nearest < self._sweep_at:
            self._arm(nearest)

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.close()
        self._sweep_at = at
        # A millisecond late rather than early, or it would sweep twice.
        self._timer = self.hub.loop.timer(max(0.0, at - monotonic()) + 0.001)
        self._timer.start(self._sweep)

    @staticmethod
    def _resume(watched: Watched, waiter: Any) -> None:
        if watched.waiter is waiter and waiter is not None:
            waiter.switch()


_pump: Pump | None = None


def watch(sock: socket.socket) -> Watched | None:
    """A place for this socket in the process's pump; None where it must be read as usual.

    That is so for TLS, which reads ahead, for threads of their own, and without gevent.
    """
    global _pump
    if type(sock) is not gevent_socket.socket or not gevent.get_hub().loop.default:
        return None
    if _pump is None or _pump.process_id != os.getpid():
        _pump = Pump()
    return _pump.watch(sock)


def is_here(watched: Watched) -> bool:
    """Whether this is the thread that the socket's pump runs in."""
    return watched.pump.hub is gevent.get_hub()
