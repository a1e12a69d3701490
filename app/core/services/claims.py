"""Runs as workers move them: claim, keep, hand on, finish, and take from the dead.

Every move is one conditional UPDATE whose row count is looked at, so that of two workers
one wins and the other notices. `worker` and `attempt` together name one claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.runs import (
    RunRequest,
    RunState,
    Usage,
    request_from_json,
)
from app.core.models import Replica, Run
from app.core.services import placement, usage
from app.core.services.placement import Candidate

# Any number will do, as long as only claims use it.
_CLAIM_LOCK = 0x77656674
MAX_BACKOFF_SECONDS = 60
NO_NODE_GRACE_SECONDS = 10
NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that this worker may execute, and where."""

    run_id: int
    uid: str
    account_id: int
    credential_id: int | None
    request: RunRequest
    candidate: Candidate
    attempt: int
    worker: str
    reply_to: str | None
    is_attached: bool
    tried_replicas: tuple[int, ...]
    created_at: datetime
    started_at: datetime
    deadline_at: datetime


@dataclass(frozen=True, slots=True)
class NotClaimed:
    """Why a run was left: gone, waiting for a place, or ended because nobody serves it."""

    run_id: int
    reason: str  # "gone" | "full" | "failed"
    ended: Ended | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """A run's end as its readers are told."""

    run_id: int
    uid: str
    reply_to: str | None
    state: RunState
    finish_reason: str | None
    error_code: str | None = None
    error: str | None = None
    usage: Usage = NO_USAGE

    def as_event(self) -> dict[str, Any]:
        """The value of the `end` event."""
        return {
            "state": self.state.value,
            "finish_reason": self.finish_reason,
            "error_code": self.error_code,
            "error": self.error,
            "usage": {
                "input_tokens": self.usage.input_tokens,
                "output_tokens": self.usage.output_tokens,
            },
        }


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a claim."""

    state: RunState
    finish_reason: str | None
    text: str
    extra: dict[str, Any] | None = None
    error_code: str | None = None
    error: str | None = None
    usage: Usage = NO_USAGE
    first_chunk_at: datetime | None = None


def lock_claims(session: Session) -> None:
    """Let one process at a time count places and take them, until the commit."""
    if session.get_bind().dialect.name == "sqlite":
        session.connection().exec_driver_sql("BEGIN IMMEDIATE")
    else:
        session.execute(sa.select(sa.func.pg_advisory_xact_lock(_CLAIM_LOCK)))


def claim_runs(
    session: Session,
    run_ids: Sequence[int],
    *,
    candidates: Sequence[Candidate],
    worker: str,
    lease_seconds: float,
    now: datetime,
) -> list[Claim | NotClaimed]:
    """Claim queued runs, oldest first, each on the node that placement chooses.

    Call `lock_claims` first. A run whose nodes are full stays queued; one that no node
    serves ends once it has waited a moment for one to come back.
    """
    queued = session.execute(
        sa.select(Run).where(Run.id.in_(run_ids), Run.state == RunState.QUEUED).order_by(Run.id)
    ).scalars().all()  # fmt: skip
    outstanding = placement.count_outstanding(session)
    results: list[Claim | NotClaimed] = []
    for run in queued:
        choice = placement.choose(run.model_name, candidates, outstanding, run.tried_replicas)
        if choice.candidate is not None:
            taken = _take(session, run, choice.candidate, worker, lease_seconds, now)
            if taken is not None:
                key = choice.candidate.replica_id
                outstanding[key] = outstanding.get(key, 0) + 1
            results.append(taken or NotClaimed(run.id, "gone"))
        else:
            results.append(_leave(session, run, choice, now))
    found = {run.id for run in queued}
    results += [NotClaimed(run_id, "gone") for run_id in run_ids if run_id not in found]
    return results


def _take(
    session: Session,
    run: Run,
    candidate: Candidate,
    worker: str,
    lease_seconds: float,
    now: datetime,
) -> Claim | None:
    attempt = run.attempt + 1
    moved = session.execute(
        sa.update(Run)
        .where(Run.id == run.id, Run.state == RunState.QUEUED, Run.attempt == run.attempt)
        .values(
            state=RunState.RUNNING,
            attempt=attempt,
            replica_id=candidate.replica_id,
            node_id=candidate.node_id,
            worker=worker,
            lease_until=now + timedelta(seconds=lease_seconds),
            started_at=now,
        )
        .execution_options(synchronize_session=False)
    )
    if moved.rowcount != 1:  # type: ignore[attr-defined]
        return None
    return Claim(
        run_id=run.id,
        uid=run.uid,
        account_id=run.account_id,
        credential_id=run.credential_id,
        request=request_from_json(run.request),
        candidate=candidate,
        attempt=attempt,
        worker=worker,
        reply_to=run.reply_to,
        is_attached=run.is_attached,
        tried_replicas=tuple(run.tried_replicas),
        created_at=run.created_at,
        started_at=now,
        deadline_at=run.deadline_at,
    )


def _leave(session: Session, run: Run, choice: placement.Choice, now: datetime) -> NotClaimed:
    waited = (now - run.created_at).total_seconds()
    if choice.is_full or (run.attempt == 0 and waited < NO_NODE_GRACE_SECONDS):
        return NotClaimed(run.id, "full")
    error_code = "no_capacity" if run.attempt == 0 else "engine_error"
    error = run.error or choice.why
    ended = _end_queued(session, run, error_code=error_code, error=error, now=now)
    return NotClaimed(run.id, "failed" if ended else "gone", ended)


def _end_queued(
    session: Session, run: Run, *, error_code: str, error: str, now: datetime
) -> Ended | None:
    moved = session.execute(
        sa.update(Run)
        .where(Run.id == run.id, Run.state == RunState.QUEUED)
        .values(
            state=RunState.FAILED, finish_reason="error", error_code=error_code,
            error=error[:500], finished_at=now,
        )
        .execution_options(synchronize_session=False)
    )  # fmt: skip
    if moved.rowcount != 1:  # type: ignore[attr-defined]
        return None
    usage.record(session, run, state=RunState.FAILED, tokens=Usage(), now=now)
    return Ended(run.id, run.uid, run.reply_to, RunState.FAILED, "error", error_code, error)


def _is_mine(claim: Claim) -> sa.ColumnElement[bool]:
    return sa.and_(
        Run.id == claim.run_id,
        Run.state == RunState.RUNNING,
        Run.worker == claim.worker,
        Run.attempt == claim.attempt,
    )


def hand_on(session: Session, claim: Claim, *, error: str, now: datetime) -> bool:
    """Put a run that failed before its first chunk back, for another node; False if it is gone."""
    moved = session.execute(
        sa.update(Run)
        .where(_is_mine(claim))
        .values(
            state=RunState.QUEUED,
            tried_replicas=[*claim.tried_replicas, claim.candidate.replica_id],
            error=error[:500],
            worker=None,
            lease_until=None,
            rung_at=now,
        )
        .execution_options(synchronize_session=False)
    )
    return moved.rowcount == 1  # type: ignore[attr-defined,no-any-return]


def finish(session: Session, claim: Claim, result: Result, *, now: datetime) -> Ended | None:
    """End a claimed run; None when it was taken from this worker meanwhile."""
    moved = session.execute(
        sa.update(Run)
        .where(_is_mine(claim))
        .values(
            state=result.state,
            finish_reason=result.finish_reason,
            error_code=result.error_code,
            error=result.error[:500] if result.error else None,
            answer_text=result.text,
            answer_extra=result.extra,
            input_tokens=result.usage.input_tokens,
            output_tokens=result.usage.output_tokens,
            first_chunk_at=result.first_chunk_at,
            finished_at=now,
            lease_until=None,
        )
        .execution_options(synchronize_session=False)
    )
    if moved.rowcount != 1:  # type: ignore[attr-defined]
        return None
    usage.record_claim(session, claim, result, now=now)
    return Ended(
        claim.run_id, claim.uid, claim.reply_to, result.state, result.finish_reason,
        result.error_code, result.error, result.usage,
    )  # fmt: skip


def note_failure(session: Session, replica_id: int, *, now: datetime) -> None:
    """Skip a replica that failed, for twice as long each time, a minute at most."""
    failures = session.scalar(sa.select(Replica.failures).where(Replica.id == replica_id))
    if failures is None:
        return
    pause = min(2 ** min(failures, 10), MAX_BACKOFF_SECONDS)
    session.execute(
        sa.update(Replica)
        .where(Replica.id == replica_id)
        .values(failures=failures + 1, backoff_until=now + timedelta(seconds=pause))
    )


def note_success(session: Session, replica_id: int) -> None:
    """Forget a replica's failures."""
    session.execute(
        sa.update(Replica)
        .where(Replica.id == replica_id, Replica.failures > 0)
        .values(failures=0, backoff_until=None)
    )


def renew_leases(
    session: Session, worker: str, *, lease_seconds: float, now: datetime
) -> list[tuple[int, bool]]:
    """Renew all leases of a worker; `(run id, cancel requested)` of each run it still holds."""
    session.execute(
        sa.update(Run)
        .where(Run.state == RunState.RUNNING, Run.worker == worker)
        .values(lease_until=now + timedelta(seconds=lease_seconds))
        .execution_options(synchronize_session=False)
    )
    rows = session.execute(
        sa.select(Run.id, Run.cancel_requested_at.is_not(None)).where(
            Run.state == RunState.RUNNING, Run.worker == worker
        )
    )
    return [(run_id, bool(wanted)) for run_id, wanted in rows]
