"""Waiting for many engines at once under gevent: one epoll for all sockets being read.

A cooperative `recv` asks the kernel in vain, arms a watcher and a timer, and takes both down
again, for every token. Here a socket is registered once for as long as it is open, edge-
triggered; gevent watches the epoll alone, and one timer stands for the nearest deadline.

Answers that flow may be gathered on top: with many of them, they are all looked at together
every few milliseconds, so that one turn of the loop, one wake-up and one write serve several
tokens. What begins or is alone is never kept waiting.
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
_EDGES: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET

# So many readers make a crowd, for which gathering pays.
_CROWD: Final = 16
_QUIET_ROUNDS: Final = 5


class Watched:
    """One socket's place in a pump: whether something may be there, and who waits for it."""

    __slots__ = (
        "deadline", "fd", "flows", "has_more", "is_ending", "pump", "recv", "waiter",
    )  # fmt: skip

    def __init__(self, pump: Pump, fd: int, recv: Callable[[int], bytes]) -> None:
        self.pump = pump
        self.fd = fd
        self.recv = recv
        self.waiter: Any = None
        self.deadline = _NEVER
        self.has_more = True
        self.flows = False
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

    def set_flowing(self, flows: bool) -> None:
        """Whether what comes next may be gathered with others': not before an answer flows."""
        if flows != self.flows:
            self.pump.move(self, flows)

    def close(self) -> None:
        """Give the place up, before the socket is closed. Whoever waits finds it closed."""
        self.pump.forget(self)


class Pump:
    """One per process, used in the thread of its gevent hub only."""

    def __init__(self, gather_seconds: float) -> None:
        self.hub: Any = gevent.get_hub()
        self.process_id = os.getpid()
        self._watched: dict[int, Watched] = {}
        self._waiting: set[Watched] = set()
        self._sweep_at = _NEVER
        self._timer: Any = None
        self._gather_seconds = gather_seconds
        self._quiet_rounds = 0
        epoll: Any = monkey.get_original("select", "epoll")
        self._prompt: select.epoll = epoll()
        self._flowing: select.epoll = epoll()
        loop = self.hub.loop
        # These are kept running: they cost nothing while no engine says anything.
        self._prompt_watcher: Any = loop.io(self._prompt.fileno(), _READABLE)
        self._prompt_watcher.start(self._dispatch, self._prompt)
        self._flowing_watcher: Any = loop.io(self._flowing.fileno(), _READABLE)
        self._flowing_watcher.start(self._gather)
        self._ticker: Any = loop.timer(gather_seconds, gather_seconds)

    def watch(self, sock: gevent_socket.socket) -> Watched:
        """Register a connected socket. Raises OSError."""
        watched = Watched(self, sock.fileno(), sock._sock.recv)
        self._prompt.register(watched.fd, _EDGES)
        self._watched[watched.fd] = watched
        return watched

    def move(self, watched: Watched, flows: bool) -> None:
        """Register a socket with the other epoll, which tells at once what is there already."""
        if self._watched.get(watched.fd) is not watched:
            return
        old, new = self._flowing, self._prompt
        if flows:
            old, new = new, old
        old.unregister(watched.fd)
        new.register(watched.fd, _EDGES)
        watched.flows = flows

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
        (self._flowing if watched.flows else self._prompt).unregister(watched.fd)
        watched.has_more = watched.is_ending = True
        if watched.waiter is not None:
            self.hub.loop.run_callback(self._resume, watched, watched.waiter)

    def _dispatch(self, epoll: select.epoll) -> int:
        """In the hub: wake those that something has come for; gives how many there were."""
        events = epoll.poll(0, _EVENTS_AT_ONCE)
        for fd, mask in events:
            watched = self._watched.get(fd)
            if watched is None:
                continue
            watched.has_more = True
            if mask != select.EPOLLIN:
                watched.is_ending = True
            if watched.waiter is not None:
                watched.waiter.switch()
        return len(events)

    def _gather(self) -> None:
        """In the hub: look at the answers that flow; from now on at intervals if they are many."""
        found = self._dispatch(self._flowing)
        is_crowd = self._gather_seconds > 0 and len(self._waiting) >= _CROWD
        if not self._ticker.active:
            if is_crowd:
                self._quiet_rounds = 0
                self._flowing_watcher.stop()
                self._ticker.again(self._gather)
            return
        self._quiet_rounds = 0 if found else self._quiet_rounds + 1
        if not is_crowd or self._quiet_rounds >= _QUIET_ROUNDS:
            self._ticker.stop()
            self._flowing_watcher.start(self._gather)

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
_gather_seconds = 0.0


def gather(seconds: float) -> None:
    """Look at many flowing answers together, this often; 0: at each when it comes.

    For the process that serves runs, at its start. Sockets opened before are not concerned.
    """
    global _pump, _gather_seconds
    _pump, _gather_seconds = None, seconds


def watch(sock: socket.socket) -> Watched | None:
    """A place for this socket in the process's pump; None where it must be read as usual.

    That is so for TLS, which reads ahead, for threads of their own, and without gevent.
    """
    global _pump
    if type(sock) is not gevent_socket.socket or not gevent.get_hub().loop.default:
        return None
    if _pump is None or _pump.process_id != os.getpid():
        _pump = Pump(_gather_seconds)
    return _pump.watch(sock)


def is_here(watched: Watched) -> bool:
    """Whether this is the thread that the socket's pump runs in."""
    return watched.pump.hub is gevent.get_hub()
