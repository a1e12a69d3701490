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

from app.core.database import Queries, take_turns
from app.core.domain.runs import (
    RunRequest,
    RunState,
    Usage,
    request_from_json,
)
from app.core.models import IS_RUNNING, Replica, Run
from app.core.services import placement, usage
from app.core.services.placement import Candidate

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
    reason: str  # "gone" | "full" | "unserved" | "failed"
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
    retry_after_seconds: int | None = None

    def as_event(self) -> dict[str, Any]:
        """The value of the `end` event. `retry_after`, in seconds, only where it is known."""
        later = self.retry_after_seconds
        return {
            "state": self.state.value,
            "finish_reason": self.finish_reason,
            "error_code": self.error_code,
            "error": self.error,
            "usage": {
                "input_tokens": self.usage.input_tokens,
                "output_tokens": self.usage.output_tokens,
            },
            **({} if later is None else {"retry_after": later}),
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


def lock_claims(session: Session | sa.Connection) -> None:
    """Let one process at a time count places and take them, until the commit."""
    take_turns(session, "claims")


# Statements of the hot path are built once: building one costs more than running it.
_runs: Any = Run.__table__
_SELECT_QUEUED = (
    sa.select(_runs)
    .where(
        _runs.c.id.in_(sa.bindparam("ids", expanding=True)), _runs.c.state == RunState.QUEUED
    )
    .order_by(_runs.c.id)
    .with_for_update()
)
_TAKE = (
    sa.update(_runs)
    .where(
        _runs.c.id == sa.bindparam("b_id"),
        _runs.c.state == RunState.QUEUED,
        _runs.c.attempt == sa.bindparam("b_attempt"),
    )
    .values(
        state=RunState.RUNNING,
        attempt=sa.bindparam("attempt"),
        replica_id=sa.bindparam("replica_id"),
        node_id=sa.bindparam("node_id"),
        worker=sa.bindparam("worker"),
        lease_until=sa.bindparam("lease_until"),
        started_at=sa.bindparam("started_at"),
    )
)


def claim_runs(
    session: Queries,
    run_ids: Sequence[int],
    *,
    candidates: Sequence[Candidate],
    worker: str,
    lease_seconds: float,
    now: datetime,
) -> list[Claim | NotClaimed]:
    """Claim queued runs, oldest first, each on the node that placement chooses.

    Call `lock_claims` first: from then on nobody else moves a queued run. A run whose nodes
    are full stays queued; one that no node serves ends once it has waited a moment for one
    to come back.
    """
    queued = session.execute(_SELECT_QUEUED, {"ids": list(run_ids)}).all()
    outstanding = placement.count_outstanding(session)
    taken: list[Claim] = []
    left: list[NotClaimed] = []
    for run in queued:
        choice = placement.choose(run.model_name, candidates, outstanding, run.tried_replicas)
        if choice.candidate is None:
            left.append(_leave(session, run, choice, now))
            continue
        taken.append(_claim_of(run, choice.candidate, worker, now))
        key = choice.candidate.replica_id
        outstanding[key] = outstanding.get(key, 0) + 1
    if taken:
        lease_until = now + timedelta(seconds=lease_seconds)
        session.execute(_TAKE, [_taking(claim, lease_until) for claim in taken])
    found = {run.id for run in queued}
    gone = [NotClaimed(run_id, "gone") for run_id in run_ids if run_id not in found]
    return [*taken, *left, *gone]


def _taking(claim: Claim, lease_until: datetime) -> dict[str, Any]:
    return {
        "b_id": claim.run_id,
        "b_attempt": claim.attempt - 1,
        "attempt": claim.attempt,
        "replica_id": claim.candidate.replica_id,
        "node_id": claim.candidate.node_id,
        "worker": claim.worker,
        "lease_until": lease_until,
        "started_at": claim.started_at,
    }


def _claim_of(run: Any, candidate: Candidate, worker: str, now: datetime) -> Claim:
    return Claim(
        run_id=run.id,
        uid=run.uid,
        account_id=run.account_id,
        credential_id=run.credential_id,
        request=request_from_json(run.request),
        candidate=candidate,
        attempt=run.attempt + 1,
        worker=worker,
        reply_to=run.reply_to,
        is_attached=run.is_attached,
        tried_replicas=tuple(run.tried_replicas),
        created_at=run.created_at,
        started_at=now,
        deadline_at=run.deadline_at,
    )


def _leave(session: Queries, run: Any, choice: placement.Choice, now: datetime) -> NotClaimed:
    waited = (now - run.created_at).total_seconds()
    if choice.is_full:
        return NotClaimed(run.id, "full")
    if run.attempt == 0 and waited < NO_NODE_GRACE_SECONDS:
        return NotClaimed(run.id, "unserved")
    error_code = "no_capacity" if run.attempt == 0 else run.error_code or "engine_error"
    error = run.error or choice.why
    ended = _end_queued(session, run, error_code=error_code, error=error, now=now)
    return NotClaimed(run.id, "failed" if ended else "gone", ended)


def _end_queued(
    session: Queries, run: Any, *, error_code: str, error: str, now: datetime
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


def hand_on(
    session: Session, claim: Claim, *, error: str, error_code: str | None = None, now: datetime,
    was_asked: bool = True,
) -> bool:  # fmt: skip
    """Put a run that failed before its first chunk back, for another node; False if it is gone.

    The error is what the run ends with when there is no other node. Not `was_asked`: the
    node was looked for in the wrong place, and is tried again.
    """
    tried = [claim.candidate.replica_id] if was_asked else []
    moved = session.execute(
        sa.update(Run)
        .where(_is_mine(claim))
        .values(
            state=RunState.QUEUED,
            tried_replicas=[*claim.tried_replicas, *tried],
            error=error[:500],
            error_code=error_code,
            worker=None,
            lease_until=None,
            rung_at=now,
        )
        .execution_options(synchronize_session=False)
    )
    return moved.rowcount == 1  # type: ignore[attr-defined,no-any-return]


_FINISH = (
    sa.update(_runs)
    .where(
        _runs.c.id == sa.bindparam("b_id"),
        _runs.c.state == RunState.RUNNING,
        _runs.c.worker == sa.bindparam("b_worker"),
        _runs.c.attempt == sa.bindparam("b_attempt"),
    )
    .values(
        {
            name: sa.bindparam(name)
            for name in (
                "state", "finish_reason", "error_code", "error", "answer_text", "answer_extra",
                "input_tokens", "output_tokens", "first_chunk_at", "finished_at",
            )
        }
        | {"lease_until": None}
    )
)  # fmt: skip


def finish_many(
    session: Queries, ends: Sequence[tuple[Claim, Result]], *, now: datetime
) -> list[Ended | None]:
    """End claimed runs; None for each that was taken from this worker meanwhile."""
    rows = [_finishing(claim, result, now) for claim, result in ends]
    moved: Any = session.execute(_FINISH, rows)
    if moved.rowcount == len(ends):
        is_mine = [True] * len(ends)
    else:
        is_mine = [_was_finished(session, claim, result, now) for claim, result in ends]
    mine = [pair for pair, is_ours in zip(ends, is_mine, strict=True) if is_ours]
    usage.record_claims(session, mine, now=now)
    return [
        _ended(claim, result) if is_ours else None
        for (claim, result), is_ours in zip(ends, is_mine, strict=True)
    ]


def _finishing(claim: Claim, result: Result, now: datetime) -> dict[str, Any]:
    return {
        "b_id": claim.run_id,
        "b_worker": claim.worker,
        "b_attempt": claim.attempt,
        "state": result.state,
        "finish_reason": result.finish_reason,
        "error_code": result.error_code,
        "error": result.error[:500] if result.error else None,
        "answer_text": result.text,
        "answer_extra": result.extra,
        "input_tokens": result.usage.input_tokens,
        "output_tokens": result.usage.output_tokens,
        "first_chunk_at": result.first_chunk_at,
        "finished_at": now,
    }


def _was_finished(session: Queries, claim: Claim, result: Result, now: datetime) -> bool:
    """Whether the batch's update, and not somebody else, ended this run."""
    found = session.scalar(
        sa.select(sa.func.count()).where(
            _runs.c.id == claim.run_id,
            _runs.c.worker == claim.worker,
            _runs.c.attempt == claim.attempt,
            _runs.c.state == result.state,
            _runs.c.finished_at == now,
        )
    )
    return found == 1


def _ended(claim: Claim, result: Result) -> Ended:
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
        .where(IS_RUNNING, Run.worker == worker)
        .values(lease_until=now + timedelta(seconds=lease_seconds))
        .execution_options(synchronize_session=False)
    )
    rows = session.execute(
        sa.select(Run.id, Run.cancel_requested_at.is_not(None)).where(
            IS_RUNNING, Run.worker == worker
        )
    )
    return [(run_id, bool(wanted)) for run_id, wanted in rows]
