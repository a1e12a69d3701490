"""What a worker does besides serving: keep leases, ring again, take runs from the dead."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import Any

import gevent
import redis
from gevent.event import Event

from app.core.clock import utc_now
from app.core.services import claims, reaper
from app.core.services.claims import NO_NODE_GRACE_SECONDS, Ended
from app.core.services.reaper import Ring
from app.core.stream import ControlListener, partial_text
from worker.context import WorkerContext
from worker.execution import Executor
from worker.ingest import run_ingest

log = logging.getLogger(__name__)

DRAIN_SECONDS = 30
STOP_SECONDS = 1.0
RING_AGAIN_SECONDS = 1.0
RING_NAME_SECONDS = 3


class Duties:
    """The periodic and the prompted work of one worker process."""

    def __init__(self, context: WorkerContext, executor: Executor) -> None:
        self._context = context
        self._executor = executor
        self._control = ControlListener(context.settings.redis_url)
        self._rounds: list[gevent.Greenlet] = []

    def start(self) -> None:
        """Listen for cancellations and begin the rounds."""
        self._control.on_control(self._on_control)
        self._control.start()
        lease = self._context.settings.run_lease_seconds
        for duty, seconds in (
            (self.renew, lease / 3),
            (self.ring_waiting, 0.5),
            (self.reap, 1.0),
        ):
            self._rounds.append(gevent.spawn(self._forever, duty, seconds))
        self._rounds.append(gevent.spawn(run_ingest, self._context, Event()))

    def stop(self) -> None:
        """End the rounds, before what they use is closed. All of them may stop anywhere."""
        gevent.killall(self._rounds, timeout=STOP_SECONDS)

    def renew(self) -> None:
        """Renew this worker's leases and look for cancellations it did not hear of."""
        lease = self._context.settings.run_lease_seconds
        held = self._context.ledger.do(
            lambda session: claims.renew_leases(
                session, self._context.name, lease_seconds=lease, now=utc_now()
            )
        )
        self._executor.keep(held)

    def ring_waiting(self) -> None:
        """Ring for queued runs that have a place now, and for those whose bell was lost."""
        now = utc_now()
        self._context.ledger.keep_candidates()
        with self._context.sessions() as session:
            ready = reaper.find_ready(
                session,
                self._context.ledger.candidates,
                rung_before=now - timedelta(seconds=RING_AGAIN_SECONDS),
                grace_until=now - timedelta(seconds=NO_NODE_GRACE_SECONDS),
            )
        if not ready:
            return
        ids = [one.run_id for one in ready]
        self._context.ledger.do(lambda session: reaper.mark_rung(session, ids, now=now))
        for one in ready:
            self._ring(one)

    def reap(self) -> None:
        """End overdue runs; hand on or end the runs of workers that died."""
        now = utc_now()
        for ended in self._context.ledger.do(lambda s: reaper.end_overdue(s, now=now)):
            self._tell(ended, after=0)
        with self._context.sessions() as session:
            orphans = reaper.find_orphans(session, now=now)
        for orphan in orphans:
            self._take(orphan)

    def _take(self, orphan: reaper.Orphan) -> None:
        text, last = partial_text(self._context.store, orphan.uid)
        taken = self._context.ledger.do(
            lambda session: reaper.take_from_dead(
                session, orphan, text=text, has_begun=last > 0,
                max_attempts=self._context.settings.max_attempts, now=utc_now(),
            )
        )  # fmt: skip
        if isinstance(taken, Ring):
            log.warning("run %s lost its worker and is handed on", orphan.uid)
            self._ring(taken)
        elif taken is not None:
            log.warning("run %s lost its worker and ends as %s", orphan.uid, taken.state)
            self._tell(taken, after=last)

    def _tell(self, ended: Ended, *, after: int) -> None:
        self._context.writer.resume(ended.uid, after=after)
        self._context.writer.end(ended.uid, ended.as_event(), reply_to=ended.reply_to)

    def _ring(self, one: Ring) -> None:
        timeout = int(self._context.settings.run_timeout_seconds) + 60
        # The earlier ring may lie with a worker that was killed before it claimed the run;
        # RQ counts that job as started for a while. A name of its own every few seconds
        # gets past it, and a ring too many does no harm.
        again = f"{one.attempt + 1}-{int(time.time() / RING_NAME_SECONDS)}"
        self._context.queue.ring(str(one.run_id), attempt=again, timeout_seconds=timeout)

    def _on_control(self, message: dict[str, Any]) -> None:
        kind = message.get("type")
        if kind == "cancel":
            self._executor.cancel(str(message.get("run_id")))
        elif kind == "read":
            self._context.writer.add_reader(
                str(message.get("run_id")), str(message.get("channel"))
            )
        elif kind == "node_gone" and isinstance(message.get("node_id"), int):
            self._context.ledger.forget_candidates()
            self._executor.node_gone(message["node_id"], began_too=False)
            gevent.spawn_later(
                DRAIN_SECONDS, self._executor.node_gone, message["node_id"], began_too=True
            )

    def _forever(self, duty: Any, seconds: float) -> None:
        while True:
            gevent.sleep(seconds)
            try:
                duty()
            except (redis.RedisError, OSError) as error:
                log.warning("%s waits for Redis: %s", duty.__name__, error)
            except Exception:
                # A duty that fails must be tried again: runs depend on it.
                log.exception("%s failed", duty.__name__)
