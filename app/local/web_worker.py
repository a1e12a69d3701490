"""Gunicorn's gevent worker, which lets go of idle connections when it is told to stop.

The stock one waits for kept-alive connections as for requests under way: until they have
been silent for as long as keep-alive allows, or the graceful timeout is over.
"""

from __future__ import annotations

import contextlib
import socket
import time
from functools import partial
from types import FrameType, TracebackType
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.sock import ssl_context
from gunicorn.workers.ggevent import GeventWorker

NOTIFY_SECONDS = 1.0
LOOK_SECONDS = 0.05
# Who has been silent for so long has no request on its way to us.
QUIET_SECONDS = 0.2


class Waiting(gevent.Timeout):  # type: ignore[misc]
    """The wait for a connection's next request."""

    def __init__(self, seconds: float, others: set[Waiting]) -> None:
        super().__init__(seconds, False)
        self._others = others
        self._connection: socket.socket | None = None
        self._since = 0.0

    def __enter__(self) -> Waiting:
        self._connection = getattr(gevent.getcurrent(), "connection", None)
        self._since = time.monotonic()
        self._others.add(self)
        super().__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        self._others.discard(self)
        found: bool | None = super().__exit__(kind, error, trace)
        return found

    def end_if_quiet(self) -> None:
        """Read no more: a request that has come is answered, and then the connection closes."""
        if time.monotonic() - self._since > QUIET_SECONDS and self._connection is not None:
            # The plain socket below gevent's: gevent's own would raise in whoever reads.
            plain = getattr(self._connection, "_sock", self._connection)
            with contextlib.suppress(OSError):
                plain.shutdown(socket.SHUT_RD)


class Address:
    """Where a listener listens, known still when it is closed.

    A connection may have been accepted a moment before; its request is answered.
    """

    def __init__(self, listener: Any) -> None:
        self._name = listener.getsockname()

    def getsockname(self) -> Any:
        """As of the listener."""
        return self._name


class WebWorker(GeventWorker):  # type: ignore[misc]
    """One web process."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._waiting: set[Waiting] = set()
        self._told_to_stop: Event | None = None

    def timeout_ctx(self) -> Waiting:
        """Around the wait for a request."""
        return Waiting(self.cfg.keepalive, self._waiting)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection."""
        gevent.getcurrent().connection = client
        super().handle(listener, client, addr)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: stop gracefully, and begin at once."""
        super().handle_exit(sig, frame)
        if self._told_to_stop is not None:
            self._told_to_stop.set()

    def run(self) -> None:
        """Serve until told to stop; then let requests under way end."""
        self._told_to_stop = Event()
        servers = [self._serve(listener) for listener in self.sockets]
        while self.alive:
            self.notify()
            self._told_to_stop.wait(NOTIFY_SECONDS)
        for server in servers:
            server.close()
        if not self._drain(servers):
            self.log.warning("Worker graceful timeout (pid:%s)", self.pid)
            for server in servers:
                server.stop(timeout=1)

    def _serve(self, listener: Any) -> StreamServer:
        listener.setblocking(1)
        tls = {"ssl_context": ssl_context(self.cfg)} if self.cfg.is_ssl else {}
        server = StreamServer(
            listener,
            handle=partial(self.handle, Address(listener)),
            spawn=Pool(self.worker_connections),
            **tls,
        )
        if self.cfg.workers > 1:
            server.max_accept = 1
        server.start()
        return server

    def _drain(self, servers: list[StreamServer]) -> bool:
        """Wait for the connections to end, idle ones right away; False when time is up."""
        deadline = time.monotonic() + self.cfg.graceful_timeout
        notified_at = 0.0
        while any(len(server.pool) for server in servers):
            now = time.monotonic()
            if now > deadline:
                return False
            if now - notified_at > NOTIFY_SECONDS:
                self.notify()
                notified_at = now
            for waiting in tuple(self._waiting):
                waiting.end_if_quiet()
            gevent.sleep(LOOK_SECONDS)
        return True
