"""Group commit: what many runs write at about the same time goes into one transaction.

A commit costs more than the statements in it. With hundreds of runs ending in the same
second, one greenlet writes for all of them; each caller waits for its own result.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import gevent
import sqlalchemy as sa
from gevent.event import AsyncResult, Event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from app.core.clock import utc_now
from app.core.database import Queries, Sessions
from app.core.services import claims, placement
from app.core.services.claims import Claim, Ended, NotClaimed, Result
from app.core.services.placement import Candidate

log = logging.getLogger(__name__)

Outcome = TypeVar("Outcome")
MAX_BATCH = 128
# A claim takes what was looked up lately; while runs come, a duty looks again more often.
CANDIDATE_SECONDS = 1.0
BUSY_SECONDS = 5.0
# A run whose model nobody served then has it looked up again: a node may just have come.
LOOK_AGAIN_SECONDS = 0.1
_RETRY_SECONDS = (0.05, 0.2, 0.5, 1.0, 2.0)


@dataclass(slots=True)
class _Entry:
    action: Callable[[Session], Any] | None = None
    run_id: int = 0
    end: tuple[Claim, Result] | None = None
    result: AsyncResult[Any] = field(default_factory=AsyncResult)


class Ledger:
    """One per worker process. Works on while the database is away, and writes when it is back."""

    def __init__(
        self,
        sessions: Sessions,
        *,
        worker: str,
        lease_seconds: float,
        offline_after_seconds: float,
    ) -> None:
        self._sessions = sessions
        self._engine: sa.Engine = sessions.kw["bind"]
        self._worker = worker
        self._lease_seconds = lease_seconds
        self._offline_after_seconds = offline_after_seconds
        self._pending: list[_Entry] = []
        self._wake = Event()
        self._candidates: list[Candidate] = []
        self._candidates_until = 0.0
        self._times_forgotten = 0
        self._looked_at = float("-inf")
        self._claimed_at = float("-inf")
        self._greenlet = gevent.spawn(self._run)

    def do(self, action: Callable[[Session], Outcome]) -> Outcome:
        """Run `action(session)` in a transaction shared with others; its result once committed."""
        return cast(Outcome, self._put(_Entry(action=action)))

    def claim(self, run_id: int) -> Claim | NotClaimed:
        """Claim a run, together with whoever else is claiming now."""
        return cast("Claim | NotClaimed", self._put(_Entry(run_id=run_id)))

    def finish(self, claim: Claim, result: Result) -> Ended | None:
        """End a claimed run, together with whoever else ends now; None when it was lost."""
        return cast("Ended | None", self._put(_Entry(end=(claim, result))))

    def candidates(self, session: Queries) -> list[Candidate]:
        """Replicas that can take runs, as they were a moment ago."""
        if time.monotonic() > self._candidates_until:
            self._look(session)
        return self._candidates

    def keep_candidates(self) -> None:
        """Look again while runs come, so that no claim has to; call it twice a second."""
        if time.monotonic() < self._claimed_at + BUSY_SECONDS:
            with self._sessions() as session:
                self._look(session)

    def _look(self, session: Queries) -> None:
        times_forgotten = self._times_forgotten
        self._candidates = placement.list_candidates(
            session, now=utc_now(), offline_after_seconds=self._offline_after_seconds
        )
        self._looked_at = time.monotonic()
        if (
            times_forgotten == self._times_forgotten
        ):  # else this may be what was to be forgotten
            self._candidates_until = self._looked_at + CANDIDATE_SECONDS

    def forget_candidates(self) -> None:
        """Look again at the next claim: a replica failed or came back."""
        self._times_forgotten += 1
        self._candidates_until = 0.0

    def close(self) -> None:
        """Stop writing. Whoever still waits is left."""
        self._greenlet.kill(block=False)

    def _put(self, entry: _Entry) -> Any:
        self._pending.append(entry)
        self._wake.set()
        return entry.result.get()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._pending:
                batch, self._pending = self._pending[:MAX_BATCH], self._pending[MAX_BATCH:]
                self._write(batch)
                gevent.sleep(0)

    def _write(self, batch: list[_Entry]) -> None:
        """Commit the batch; if that fails for one of them, each alone."""
        for pause in (*_RETRY_SECONDS, None):
            try:
                results = self._commit(batch)
            except OperationalError as error:
                log.warning("the database does not answer: %s", error.orig)
                if pause is None:
                    self._fail(batch, error)
                    return
                gevent.sleep(pause)
            except Exception as error:  # noqa: BLE001 - handed to the caller it belongs to
                self._write_apart(batch, error)
                return
            else:
                for entry, result in zip(batch, results, strict=True):
                    entry.result.set(result)
                return

    def _write_apart(self, batch: list[_Entry], error: BaseException) -> None:
        if len(batch) == 1:
            self._fail(batch, error)
            return
        for entry in batch:
            self._write([entry])

    @staticmethod
    def _fail(batch: list[_Entry], error: BaseException) -> None:
        for entry in batch:
            entry.result.set_exception(error)

    def _commit(self, batch: list[_Entry]) -> list[Any]:
        if all(entry.action is None for entry in batch):
            return self._commit_moves(batch)
        with self._sessions() as session:
            try:
                run_ids = [entry.run_id for entry in batch if entry.run_id]
                if run_ids:
                    claims.lock_claims(session)
                # Runs that end make room for those that begin.
                ended = self._finish_all(session, [e.end for e in batch if e.end])
                claimed = self._claim_all(session, run_ids)
                results = [self._result(entry, session, claimed, ended) for entry in batch]
                session.commit()
            except DBAPIError:
                session.rollback()
                raise
        return results

    def _commit_moves(self, batch: list[_Entry]) -> list[Any]:
        """Nothing but runs that begin and end: those need no session, and are the most."""
        with self._engine.begin() as connection:
            run_ids = [entry.run_id for entry in batch if entry.run_id]
            if run_ids:
                claims.lock_claims(connection)
            ended = self._finish_all(connection, [e.end for e in batch if e.end])
            claimed = self._claim_all(connection, run_ids)
        return [next(ended) if entry.end else claimed[entry.run_id] for entry in batch]

    @staticmethod
    def _result(
        entry: _Entry,
        session: Session,
        claimed: dict[int, Claim | NotClaimed],
        ended: Iterator[Ended | None],
    ) -> Any:
        if entry.action is not None:
            return entry.action(session)
        return next(ended) if entry.end is not None else claimed[entry.run_id]

    @staticmethod
    def _finish_all(
        session: Queries, ends: list[tuple[Claim, Result]]
    ) -> Iterator[Ended | None]:
        return iter(claims.finish_many(session, ends, now=utc_now()) if ends else ())

    def _claim_all(self, session: Queries, run_ids: list[int]) -> dict[int, Claim | NotClaimed]:
        if not run_ids:
            return {}
        self._claimed_at = time.monotonic()
        found = self._claim(session, run_ids)
        unserved = [
            run_id
            for run_id, one in found.items()
            if isinstance(one, NotClaimed) and one.reason == "unserved"
        ]
        if unserved and time.monotonic() > self._looked_at + LOOK_AGAIN_SECONDS:
            self._look(session)
            found |= self._claim(session, unserved)
        return found

    def _claim(self, session: Queries, run_ids: list[int]) -> dict[int, Claim | NotClaimed]:
        found = claims.claim_runs(
            session, run_ids, candidates=self.candidates(session), worker=self._worker,
            lease_seconds=self._lease_seconds, now=utc_now(),
        )  # fmt: skip
        return {one.run_id: one for one in found}
