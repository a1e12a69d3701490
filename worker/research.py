"""Driving research jobs: claim one, keep it, write its end; ring for those left alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta

import gevent
import redis
from gevent import Greenlet
from sqlalchemy.exc import OperationalError

from app.core.clock import utc_now
from app.core.domain.research import ResearchState
from app.core.queue import RESEARCH, RESEARCH_TASK
from app.core.services import research_work
from app.core.services.research_work import ResearchClaim
from app.core.services.runs import Availability
from app.core.stream import StreamHub
from worker.context import WorkerContext
from worker.research_asking import Asker, Lost, StepFailed
from worker.research_drive import Drive
from worker.research_report import Report

log = logging.getLogger(__name__)

MOST_ATTEMPTS = 12
RING_AGAIN_SECONDS = 5.0
LOOK_SECONDS = 0.5


class HandedOver(Exception):
    """This worker stops; the next one goes on."""


class Researcher:
    """One per worker process."""

    def __init__(self, context: WorkerContext, is_stopping: Callable[[], bool]) -> None:
        self._context = context
        self._is_stopping = is_stopping
        self._availability = Availability()
        self._hub: StreamHub | None = None

    def execute(self, job_id: int) -> None:
        """Drive a job to its end. Safe to call twice, and to be cut off anywhere."""
        lease = self._context.settings.run_lease_seconds
        claim = self._context.ledger.do(
            lambda session: research_work.claim_job(
                session, job_id, worker=self._context.name, lease_seconds=lease, now=utc_now()
            )
        )
        if claim is None:
            return
        written = Report(self._context, claim)
        asker = Asker(self._context, claim, self._reading_hub(), self._availability)
        drive = Drive(self._context, claim, asker, written)
        body = gevent.spawn(self._run, drive, claim)
        keeper = gevent.spawn(self._keep, asker, body)
        try:
            body.join()
        except BaseException:  # the worker stops, or the job's time is over: hand it on
            body.kill()
            self._let_go(claim, written)
            raise
        finally:
            keeper.kill()
        self._end(claim, drive, asker, written, _outcome(body))

    def reap(self) -> None:
        """Ring for jobs that nobody drives: their worker died, or their bell was lost."""
        now = utc_now()
        before = now - timedelta(seconds=RING_AGAIN_SECONDS)
        found = self._context.ledger.do(
            lambda session: research_work.find_unheld(session, rung_before=before, now=now)
        )
        timeout = int(self._context.settings.research_timeout_seconds) + 120
        for job_id in found:
            log.warning("research %s is driven by nobody and is rung for", job_id)
            self._context.queue.enqueue(
                RESEARCH_TASK, str(job_id), queue=RESEARCH, timeout_seconds=timeout
            )

    def _reading_hub(self) -> StreamHub:
        if self._hub is None:
            self._hub = StreamHub(self._context.settings.redis_url)
            self._hub.start()
            self._hub.wait_ready(2.0)
        return self._hub

    @staticmethod
    def _run(drive: Drive, claim: ResearchClaim) -> None:
        if claim.attempt > MOST_ATTEMPTS:
            raise StepFailed("worker_lost", "The workers that did this research were all lost.")
        left = (claim.deadline_at - utc_now()).total_seconds()
        late = StepFailed("deadline_exceeded", "The research did not end before its deadline.")
        with gevent.Timeout(max(0.1, left), late):
            drive.run()

    def _keep(self, asker: Asker, body: Greenlet[..., None]) -> None:
        """Renew the lease while the job is driven; end the driving when it is lost.

        A worker that stops would only keep it waiting: another one goes on with it.
        """
        renew_at = 0.0
        while True:
            gevent.sleep(LOOK_SECONDS)
            if self._is_stopping():
                body.kill(HandedOver(), block=False)
                return
            if time.monotonic() < renew_at:
                continue
            renew_at = time.monotonic() + self._context.settings.run_lease_seconds / 3
            try:
                asker.do(lambda session: None)
            except Lost as lost:
                body.kill(lost, block=False)
                return
            except OperationalError:
                log.warning("a research job's lease could not be renewed now")

    def _end(
        self, claim: ResearchClaim, drive: Drive, asker: Asker, written: Report,
        outcome: BaseException | None,
    ) -> None:  # fmt: skip
        if isinstance(outcome, Lost):
            self._leave(claim, written)
            return
        if isinstance(outcome, HandedOver | OperationalError | redis.RedisError | OSError):
            log.warning("research %s is handed on: %r", claim.uid, outcome)
            self._let_go(claim, written)
            return
        code = error = None
        if outcome is not None:
            code, error = _failure(outcome)
            asker.cancel_all(drive.steps)
        state = ResearchState.FAILED if outcome is not None else ResearchState.SUCCEEDED
        sources = [{"number": s.number, "title": s.title, "url": s.url} for s in drive.sources]
        is_ours = self._context.ledger.do(
            lambda session: research_work.finish_job(
                session, claim, state=state, answer_text=written.text, sources=sources,
                error_code=code, error=error, now=utc_now(),
            )
        )  # fmt: skip
        if is_ours:
            written.end(end_value(state.value, code, error))
        else:
            self._leave(claim, written)

    def _leave(self, claim: ResearchClaim, written: Report) -> None:
        """The job is not ours: another worker has it, or nobody wants this asking any more."""
        with self._context.sessions() as session:
            is_wanted = research_work.is_asked_still(session, claim)
        if is_wanted:
            written.discard()
        else:
            written.end(end_value("cancelled", None, None))

    def _let_go(self, claim: ResearchClaim, written: Report) -> None:
        written.discard()
        self._context.ledger.do(
            lambda session: research_work.release(session, claim, now=utc_now())
        )


def end_value(state: str, code: str | None, error: str | None) -> dict[str, object]:
    """The value of the stream's `end`."""
    reasons = {"succeeded": "stop", "failed": "error", "cancelled": "cancelled"}
    return {
        "state": state,
        "finish_reason": reasons[state],
        "error_code": code,
        "error": error,
        "usage": {"input_tokens": None, "output_tokens": None},
    }


def _outcome(body: Greenlet[..., None]) -> BaseException | None:
    error = body.exception
    return error if isinstance(error, BaseException) else None


def _failure(error: BaseException) -> tuple[str, str]:
    """Code and sentence; of our own bugs, callers hear only that there is one."""
    if isinstance(error, StepFailed):
        return error.code, error.message
    log.error("a research job failed on a bug", exc_info=error)
    return "error", "Internal error."
