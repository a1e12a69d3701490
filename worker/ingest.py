"""Moving heartbeats from the Redis stream into the database.

Entries are acknowledged after the commit. Whatever is delivered again, to this ingester or
another, changes nothing (see `app.core.services.beat_store`), so a kill at any point loses
and doubles nothing. Any number of ingesters may run; each takes what the others have not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import gevent
import msgspec
import redis
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from app.core.database import Sessions, unit_of_work
from app.core.domain.beats import ReceivedBeat, decode_received
from app.core.services import beat_store
from app.core.services.beat_rating import Rater
from app.core.services.heartbeats import FIELD, GROUP, STREAM
from app.core.services.node_reports import keep_live

log = logging.getLogger(__name__)

MAX_BEATS = 1_000
GATHER_SECONDS = 0.5
BLOCK_MS = 1_000
READ_ENTRIES = 100
CLAIM_EVERY_SECONDS = 10.0
# An entry that its reader has not acknowledged for so long belongs to whoever asks.
CLAIM_IDLE_MS = 30_000
FORGOTTEN_AFTER_MS = 3_600_000
# A transaction is so large at most: the worker's other greenlets wait for it on SQLite.
TRANSACTION_BEATS = 250
PAUSES_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0)


class Stop(Protocol):
    """Says when to end; `threading.Event` and gevent's are ones."""

    def is_set(self) -> bool:
        """Whether to end."""
        ...


class IngestContext(Protocol):
    """What of a worker's context the ingester needs."""

    @property
    def name(self) -> str:
        """Unique among running workers."""
        ...

    @property
    def sessions(self) -> Sessions:
        """Where beats go."""
        ...

    @property
    def store(self) -> redis.Redis:
        """Where they come from."""
        ...


@dataclass(slots=True)
class _Batch:
    """Entries of the stream and the beats in them."""

    ids: list[bytes] = field(default_factory=list)
    beats: list[ReceivedBeat] = field(default_factory=list)

    def add(self, entries: Iterable[Any]) -> None:
        for entry_id, values in entries:
            self.ids.append(entry_id)
            for line in (values or {}).get(FIELD, b"").split(b"\n"):
                self._add_line(line)

    def _add_line(self, line: bytes) -> None:
        if not line:
            return
        try:
            self.beats.append(decode_received(line))
        except (msgspec.MsgspecError, ValueError):
            log.error("dropped a heartbeat that is none: %.200r", line)


class Ingester:
    """One consumer of the stream."""

    def __init__(self, context: IngestContext) -> None:
        self._redis = context.store
        self._sessions = context.sessions
        self._consumer = context.name
        self._rater = Rater()
        self._claim_due = 0.0
        self._held: _Batch | None = None

    def run(self, stop: Stop) -> None:
        """Ingest until told to stop; wait for Redis and the database as long as it takes."""
        pauses = iter(PAUSES_SECONDS)
        while not stop.is_set():
            try:
                self.step()
            except redis.ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                self._make_group()
            except (redis.RedisError, OSError, OperationalError, InterfaceError) as error:
                log.warning("heartbeats wait in Redis: %s", error)
                gevent.sleep(next(pauses, PAUSES_SECONDS[-1]))
            else:
                pauses = iter(PAUSES_SECONDS)

    def step(self, *, block_ms: int = BLOCK_MS) -> int:
        """Take what is there, at most a batch, and write it; gives how many beats.

        Raises what Redis and the database raise; then nothing is acknowledged, and the next
        step tries the same batch again.
        """
        batch = self._held or self._take(block_ms)
        self._held = batch
        if batch.ids:
            self._apply(batch.beats)
            self._acknowledge(batch)
        self._held = None
        return len(batch.beats)

    def _take(self, block_ms: int) -> _Batch:
        batch = _Batch()
        if time.monotonic() >= self._claim_due:
            self._claim_due = time.monotonic() + CLAIM_EVERY_SECONDS
            batch.add(self._claim())
            self._bury_consumers()
        self._gather(batch, block_ms)
        return batch

    def _gather(self, batch: _Batch, block_ms: int) -> None:
        """Read until a batch is full, or half a second after its first entry."""
        if not batch.ids:
            batch.add(self._read(block_ms))
        deadline = time.monotonic() + min(GATHER_SECONDS, block_ms / 1000)
        while batch.ids and len(batch.beats) < MAX_BEATS:
            wait_ms = int((deadline - time.monotonic()) * 1000)
            entries = self._read(wait_ms)
            batch.add(entries)
            if not entries and wait_ms <= 0:
                return

    def _read(self, wait_ms: int) -> list[Any]:
        found: Any = self._redis.xreadgroup(
            GROUP, self._consumer, {STREAM: ">"}, count=READ_ENTRIES,
            block=wait_ms if wait_ms > 0 else None,
        )  # fmt: skip
        if not found:
            return []
        rows = found.values() if isinstance(found, dict) else (entries for _, entries in found)
        return [entry for entries in rows for entry in entries]

    def _claim(self) -> list[Any]:
        """Entries of readers that died before they acknowledged them."""
        try:
            answer: Any = self._redis.xautoclaim(
                STREAM, GROUP, self._consumer, CLAIM_IDLE_MS, count=READ_ENTRIES
            )
        except redis.ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            self._make_group()
            return []
        return [entry for entry in answer[1] if entry[1]]

    def _bury_consumers(self) -> None:
        """Forget readers that are long gone and owe nothing."""
        found: Any = self._redis.xinfo_consumers(STREAM, GROUP)
        for one in found:
            is_other = one["name"] != self._consumer.encode()
            if is_other and one["pending"] == 0 and one["idle"] > FORGOTTEN_AFTER_MS:
                self._redis.xgroup_delconsumer(STREAM, GROUP, one["name"])

    def _make_group(self) -> None:
        """Make stream and group: at the first start, and after Redis lost its data."""
        try:
            self._redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    def _apply(self, beats: list[ReceivedBeat]) -> None:
        """Write beats; one that the database refuses is left out, not those beside it."""
        beats.sort(key=lambda one: one.at_ms)
        for start in range(0, len(beats), TRANSACTION_BEATS):
            self._write(beats[start : start + TRANSACTION_BEATS])
            gevent.sleep(0)

    def _write(self, beats: list[ReceivedBeat]) -> None:
        try:
            with unit_of_work(self._sessions) as session:
                beat_store.apply_beats(session, beats, self._rater)
        except (OperationalError, InterfaceError):
            raise
        except DBAPIError:
            if len(beats) == 1:
                log.exception("dropped a heartbeat that the database refuses: %r", beats[0])
                return
            middle = len(beats) // 2
            self._write(beats[:middle])
            self._write(beats[middle:])

    def _acknowledge(self, batch: _Batch) -> None:
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.xack(STREAM, GROUP, *batch.ids)
            pipeline.xdel(STREAM, *batch.ids)
            keep_live(pipeline, batch.beats)
            pipeline.execute()


def run_ingest(context: IngestContext, stop: Stop) -> None:
    """Ingest heartbeats until `stop` is set. Run it as a greenlet or a thread of a worker."""
    ingester = Ingester(context)
    while not stop.is_set():
        try:
            ingester.run(stop)
        except Exception:
            # Points depend on it: whatever it was, try again.
            log.exception("the ingester of heartbeats failed")
            gevent.sleep(1.0)
