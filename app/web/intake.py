"""Accepting runs: what arrives at about the same time is one transaction and one ring."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import redis
import sqlalchemy as sa

from app.core.queue import RunQueue
from app.core.services import runs

MOST_AT_ONCE: Final = 8
"""Not more: a worker is to begin with the first of a burst while the others are accepted."""

Also = Callable[[sa.Connection, int], Any]

log = logging.getLogger(__name__)


class _Arrival:
    """One row that its caller waits to see committed."""

    __slots__ = ("also", "done", "error", "result", "row", "run_id")

    def __init__(self, row: dict[str, Any], also: Also | None) -> None:
        self.row = row
        self.also = also
        self.run_id = 0
        self.result: Any = None
        self.error: Exception | None = None
        self.done = threading.Event()


class Intake:
    """One per web process. A commit costs more than the rows in it, and so does a ring."""

    def __init__(self, queue: RunQueue, run_timeout_seconds: float) -> None:
        self._queue = queue
        self._ring_seconds = int(run_timeout_seconds) + 60
        self._arrivals: list[_Arrival] = []
        self._lock = threading.Lock()  # never held while the database is asked
        self._has_leader = False

    def accept(
        self, engine: sa.Engine, row: dict[str, Any], also: Also | None = None
    ) -> tuple[int, Any]:
        """Commit a row of `runs.new_run` and ring for it; gives its id.

        `also(connection, run id)` writes more in the same transaction; its result comes
        second. Without Redis the run waits in the database and is rung for later.
        Raises what the database raises; nothing is stored then.
        """
        arrival = _Arrival(row, also)
        with self._lock:
            self._arrivals.append(arrival)
            leads, self._has_leader = not self._has_leader, True
            is_full = len(self._arrivals) >= MOST_AT_ONCE
        if is_full:
            self._write(engine)
        elif leads:
            try:
                time.sleep(0)  # requests that were read together get here together
            finally:
                self._write(engine)
        arrival.done.wait()
        if arrival.error is not None:
            raise arrival.error
        return arrival.run_id, arrival.result

    def _write(self, engine: sa.Engine) -> None:
        with self._lock:
            # Whoever came beyond this number comes here too, for the rest.
            batch, rest = self._arrivals[:MOST_AT_ONCE], self._arrivals[MOST_AT_ONCE:]
            self._arrivals = rest
            self._has_leader = False
        if not batch:
            return
        try:
            try:
                self._commit(engine, batch)
            except sa.exc.SQLAlchemyError as error:
                self._write_apart(engine, batch, error)
            self._ring([arrival for arrival in batch if arrival.error is None])
        finally:
            # A caller that is killed in here must not leave the others waiting for ever.
            for arrival in batch:
                if not arrival.run_id and arrival.error is None:
                    arrival.error = InterruptedError("the run was not written")
                arrival.done.set()

    def _write_apart(
        self, engine: sa.Engine, batch: list[_Arrival], error: sa.exc.SQLAlchemyError
    ) -> None:
        """One of them may have spoilt it for all: each alone."""
        if len(batch) == 1:
            batch[0].error = error
            return
        for arrival in batch:
            try:
                self._commit(engine, [arrival])
            except sa.exc.SQLAlchemyError as its_error:
                arrival.error = its_error

    @staticmethod
    def _commit(engine: sa.Engine, batch: list[_Arrival]) -> None:
        with engine.begin() as connection:
            ids = runs.insert_runs(connection, [arrival.row for arrival in batch])
            for arrival, run_id in zip(batch, ids, strict=True):
                if arrival.also is not None:
                    arrival.result = arrival.also(connection, run_id)
        for arrival, run_id in zip(batch, ids, strict=True):
            arrival.run_id = run_id

    def _ring(self, batch: list[_Arrival]) -> None:
        ids = [str(arrival.run_id) for arrival in batch]
        if not ids:
            return
        try:
            self._queue.ring_all(ids, timeout_seconds=self._ring_seconds)
        except (redis.RedisError, OSError) as error:
            log.warning("%d runs wait for Redis: %s", len(ids), error)
