"""Taking heartbeats in: checked, put into a Redis stream, and only then answered.

A beat that was answered is in Redis. With `appendfsync everysec`, killing Redis loses none
of them (its last writes are with the kernel); losing power may lose the last second.
`worker.ingest` moves them into the database, also after a crash of either side.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

import gevent
import redis
from gevent.event import AsyncResult
from gevent.lock import RLock

from app.core.database import Sessions
from app.core.domain.beats import Beat, ReceivedBeat, encode_received
from app.core.domain.errors import RateLimited, Unavailable
from app.core.services.node_tokens import KnownNode, NodeTokens

log = logging.getLogger(__name__)

STREAM = "weft:heartbeats"
GROUP = "ingest"
FIELD = b"b"
MAX_LINES = 500
MAX_WAITING = 10_000
# Entries not yet in the database. An entry holds one beat or hundreds.
MAX_BACKLOG = 200_000
BACKLOG_CHECK_SECONDS = 1.0
RETRY_SECONDS = 5
ANSWER_SECONDS = 10.0


@dataclass(slots=True)
class _Waiting:
    line: bytes
    # Gevent's own: works patched and plain, and across threads.
    result: AsyncResult[None] = field(default_factory=AsyncResult)


class HeartbeatInbox:
    """Puts beats into the stream, all that come at about the same time in one command."""

    def __init__(self, redis_url: str) -> None:
        self._redis = redis.Redis.from_url(
            redis_url, socket_timeout=5, socket_connect_timeout=2, retry_on_timeout=False
        )
        self._lock = RLock()
        self._waiting: list[_Waiting] = []
        self._is_flushing = False
        self._is_full = False
        self._check_due = 0.0

    def put(self, line: bytes) -> None:
        """Return once Redis has it. Raises Unavailable when it can't be had or is full."""
        if self._is_full or len(self._waiting) >= MAX_WAITING:
            self._begin_flush()
            raise Unavailable("Too many heartbeats wait. Come again.", retry_after_seconds=15)
        mine = _Waiting(line)
        self._waiting.append(mine)
        self._begin_flush()
        try:
            mine.result.get(timeout=ANSWER_SECONDS)
        except gevent.Timeout:
            raise _away() from None

    def close(self) -> None:
        """Let the connections go."""
        self._redis.close()

    def _begin_flush(self) -> None:
        with self._lock:
            if self._is_flushing:
                return
            self._is_flushing = True
        # A greenlet of its own starts after all that are runnable now have put theirs in.
        gevent.spawn(self._flush)

    def _flush(self) -> None:
        while True:
            with self._lock:
                batch, self._waiting = self._waiting[:MAX_LINES], self._waiting[MAX_LINES:]
                if not batch and time.monotonic() < self._check_due:
                    self._is_flushing = False
                    return
            self._write(batch)

    def _write(self, batch: list[_Waiting]) -> None:
        error: Exception | None = None
        try:
            if batch:
                value = b"\n".join(one.line for one in batch)
                self._redis.xadd(STREAM, {FIELD: value})
            if time.monotonic() >= self._check_due:
                self._check_due = time.monotonic() + BACKLOG_CHECK_SECONDS
                self._is_full = self._redis.xlen(STREAM) > MAX_BACKLOG  # type: ignore[operator]
        except (redis.RedisError, OSError) as failure:
            log.warning("Redis does not take heartbeats: %s", failure)
            error = _away()
            self._check_due = time.monotonic() + BACKLOG_CHECK_SECONDS
        for one in batch:
            if error is None:
                one.result.set(None)
            else:
                one.result.set_exception(error)


class HeartbeatDoor:
    """What the web asks: whose token is that, and take this beat."""

    def __init__(self, sessions: Sessions, redis_url: str) -> None:
        self.tokens = NodeTokens(sessions)
        self._inbox = HeartbeatInbox(redis_url)

    def take(self, node: KnownNode, beat: Beat) -> None:
        """Keep a beat. Raises RateLimited or Unavailable; then it is not kept."""
        if not node.may_beat(time.monotonic()):
            raise RateLimited("Too many heartbeats.", retry_after_seconds=10)
        self.put(node.node_id, beat)

    def put(self, node_id: int, beat: Beat) -> None:
        """Keep a beat of a node that was recognised otherwise. Raises Unavailable."""
        at_ms = time.time_ns() // 1_000_000
        self._inbox.put(encode_received(ReceivedBeat(node_id, at_ms, beat)))

    def close(self) -> None:
        """Let the connections go."""
        self._inbox.close()


def _away() -> Unavailable:
    return Unavailable(
        "Heartbeats can't be taken now. Come again.", retry_after_seconds=RETRY_SECONDS
    )
