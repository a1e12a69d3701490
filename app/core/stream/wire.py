"""One Redis connection spoken to directly: packed commands out, parsed replies in.

A client library's pipeline costs more per token than Redis itself. Connecting, sign-in,
TLS and database choice stay with redis-py; only the bytes in between are ours.
"""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis
from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

RECEIVE_BYTES: Final = 65_536
CONNECT_TIMEOUT_SECONDS: Final = 5.0
REPLY_TIMEOUT_SECONDS: Final = 10.0
LONGEST_PAUSE_SECONDS: Final = 2.0

log = logging.getLogger(__name__)


def pack(*words: bytes) -> bytes:
    """One Redis command as bytes."""
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"".join(parts)


class Wire:
    """A connection. Every failure is an OSError, after which it must be thrown away."""

    def __init__(self, pool: ConnectionPool, timeout_seconds: float | None) -> None:
        self._connection = pool.connection_class(**pool.connection_kwargs)
        self._reader = hiredis.Reader()
        try:
            self._connection.connect()
        except RedisError as error:
            raise ConnectionError(str(error)) from error
        self._socket: socket.socket = self._connection._sock
        self._socket.settimeout(timeout_seconds)

    def send(self, packed: bytes) -> None:
        """Send bytes, all of them."""
        self._socket.sendall(packed)

    def receive(self) -> Any:
        """The next reply. An error reply comes back as a `hiredis.ReplyError`, not raised."""
        while True:
            reply = self._reader.gets()
            if reply is not False:
                return reply
            received = self._socket.recv(RECEIVE_BYTES)
            if not received:
                raise ConnectionError("Redis closed the connection")
            self._reader.feed(received)

    def receive_many(self, count: int) -> list[Any]:
        """The next `count` replies."""
        return [self.receive() for _ in range(count)]

    def close(self) -> None:
        """Close; a thread that waits in `receive` gets an OSError."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError, RedisError):
            self._connection.disconnect()


class Asker:
    """Questions over a connection of its own, opened at the first. For one caller at a time."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._wire: Wire | None = None

    def ask(self, packed: bytes, count: int = 1) -> list[Any]:
        """The replies to `count` packed commands; error replies come back as they are.

        Tries once more at once, because its connection may be stale: what is asked must bear
        being sent twice. Raises OSError.
        """
        if self._wire is not None:
            try:
                return self._exchange(self._wire, packed, count)
            except TimeoutError:
                raise
            except OSError:
                pass
        self._wire = Wire(self._pool, REPLY_TIMEOUT_SECONDS)
        return self._exchange(self._wire, packed, count)

    def ask_one(self, *words: bytes) -> Any:
        """The reply to one command. Raises OSError, also for an error reply."""
        reply = self.ask(pack(*words))[0]
        if isinstance(reply, hiredis.ReplyError):
            raise ConnectionError(str(reply))
        return reply

    def close(self) -> None:
        """Hang up; the next question connects again."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def _exchange(self, wire: Wire, packed: bytes, count: int) -> list[Any]:
        try:
            wire.send(packed)
            return wire.receive_many(count)
        except BaseException:
            self.close()  # a reply that nobody waited for would answer the next question
            raise


def wire_pool(redis_url: str) -> ConnectionPool:
    """What a `Wire` needs to connect. It connects once: retrying is the caller's business."""
    return ConnectionPool.from_url(
        redis_url,
        protocol=2,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_timeout=CONNECT_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )


def quick_client(redis_url: str) -> Redis:
    """A client that tries once more at once (its connection may be stale), then says so.

    redis-py's own default waits for seconds between attempts, with the caller in its hands.
    """
    return Redis.from_url(
        redis_url,
        socket_timeout=REPLY_TIMEOUT_SECONDS,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 1),
    )


class Backoff:
    """Pauses between attempts to connect: 50 ms, doubling to 2 s, with jitter."""

    def __init__(self) -> None:
        self._pause = 0.0

    def reset(self) -> None:
        self._pause = 0.0

    def next_seconds(self) -> float:
        self._pause = min(LONGEST_PAUSE_SECONDS, self._pause * 2 or 0.05)
        return self._pause * random.uniform(0.75, 1.25)


class Listener:
    """Subscribes to channels and stays subscribed, whatever happens to Redis.

    `on_message(channel, payload)` and `on_subscribed()` run in the listening thread or
    greenlet and must not block. `on_subscribed` is called after every subscription, the
    first included: what was published before it has been missed.
    """

    def __init__(
        self,
        redis_url: str,
        channels: Sequence[str],
        on_message: Callable[[bytes, bytes], None],
        on_subscribed: Callable[[], None] | None = None,
        *,
        silence_seconds: float = 20.0,
    ) -> None:
        self._pool = wire_pool(redis_url)
        self._channels = [channel.encode() for channel in channels]
        self._on_message = on_message
        self._on_subscribed = on_subscribed
        self._silence_seconds = silence_seconds
        self._wire: Wire | None = None
        self._closed = threading.Event()
        self._subscribed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start listening in the background."""
        self._thread = threading.Thread(target=self._listen, name="weft-listen", daemon=True)
        self._thread.start()

    def wait_subscribed(self, timeout: float) -> bool:
        """True when Redis has confirmed the subscription."""
        return self._subscribed.wait(timeout)

    def close(self) -> None:
        """Stop listening and wait until the listener is gone."""
        self._closed.set()
        if self._wire is not None:
            self._wire.close()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _listen(self) -> None:
        backoff = Backoff()
        while not self._closed.is_set():
            try:
                self._listen_once(backoff)
            except OSError as error:
                if not self._closed.is_set():
                    log.warning("Redis subscription lost (%s), subscribing again", error)
            self._subscribed.clear()
            self._closed.wait(backoff.next_seconds())

    def _listen_once(self, backoff: Backoff) -> None:
        self._wire = wire = Wire(self._pool, self._silence_seconds)
        try:
            wire.send(pack(b"SUBSCRIBE", *self._channels))
            wire.receive_many(len(self._channels))
            backoff.reset()
            self._subscribed.set()
            if self._on_subscribed is not None:
                self._on_subscribed()
            self._hear(wire)
        finally:
            wire.close()

    def _hear(self, wire: Wire) -> None:
        pinged_at: float | None = None
        while not self._closed.is_set():
            try:
                reply = wire.receive()
            except TimeoutError:
                # A silent connection may be dead: an answer to PING proves that it isn't.
                if pinged_at is not None:
                    raise
                pinged_at = time.monotonic()
                wire.send(pack(b"PING"))
                continue
            pinged_at = None
            if isinstance(reply, hiredis.ReplyError):
                raise ConnectionError(str(reply))
            if reply[0] == b"message":
                self._on_message(reply[1], reply[2])
