"""Runs that nobody moves any more: re-rung, handed on, or ended, so that none is lost.

Every worker may do this at any time; the conditional updates let one of them win.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.runs import RunState, Usage
from app.core.models import IS_QUEUED, IS_RUNNING, Run
from app.core.services import placement, usage
from app.core.services.claims import Ended
from app.core.services.placement import Candidate

BATCH = 200
WORKER_LOST = "The worker that served this run was lost."


@dataclass(frozen=True, slots=True)
class Ring:
    """A queued run whose bell should be rung (again)."""

    run_id: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Orphan:
    """A running run whose worker let its lease run out."""

    run_id: int
    uid: str
    worker: str | None
    attempt: int


def find_ready(
    session: Session,
    candidates: Callable[[Session], Sequence[Candidate]],
    *,
    rung_before: datetime,
    grace_until: datetime,
) -> list[Ring]:
    """Queued runs that could be claimed now, oldest first: as many per model as have places.

    `candidates` is asked for those replicas only when runs wait.
    Runs of models that nobody serves are rung once they were created before `grace_until`,
    so that they end.
    """
    queued = session.execute(
        sa.select(Run.id, Run.model_name, Run.attempt, Run.created_at)
        .where(IS_QUEUED, Run.rung_at < rung_before)
        .order_by(Run.id)
        .limit(BATCH * 10)
    ).all()
    if not queued:
        return []
    free = _free_places(session, candidates(session))
    ready = []
    for run_id, model_name, attempt, created_at in queued:
        if model_name not in free:
            if created_at < grace_until or attempt > 0:
                ready.append(Ring(run_id, attempt))
        elif free[model_name] > 0:
            free[model_name] -= 1
            ready.append(Ring(run_id, attempt))
    return ready[:BATCH]


def _free_places(session: Session, candidates: Sequence[Candidate]) -> dict[str, int]:
    outstanding = placement.count_outstanding(session)
    free: dict[str, int] = {}
    for found in candidates:
        left = max(0, found.concurrency - outstanding.get(found.replica_id, 0))
        free[found.model_name] = free.get(found.model_name, 0) + left
    return free


def mark_rung(session: Session, run_ids: Sequence[int], *, now: datetime) -> None:
    """Remember when these were rung for."""
    session.execute(
        sa.update(Run)
        .where(Run.id.in_(run_ids), Run.state == RunState.QUEUED)
        .values(rung_at=now)
        .execution_options(synchronize_session=False)
    )


def end_overdue(session: Session, *, now: datetime) -> list[Ended]:
    """End queued runs whose deadline has passed."""
    overdue = session.scalars(
        sa.select(Run).where(IS_QUEUED, Run.deadline_at < now).limit(BATCH)
    ).all()
    message = "No node had a free place before the run's deadline."
    ended = []
    for run in overdue:
        moved = session.execute(
            sa.update(Run)
            .where(Run.id == run.id, Run.state == RunState.QUEUED)
            .values(
                state=RunState.FAILED, finish_reason="error", finished_at=now,
                error_code="deadline_exceeded", error=message,
            )
            .execution_options(synchronize_session=False)
        )  # fmt: skip
        if moved.rowcount == 1:  # type: ignore[attr-defined]
            usage.record(session, run, state=RunState.FAILED, tokens=Usage(), now=now)
            ended.append(
                Ended(run.id, run.uid, run.reply_to, RunState.FAILED, "error",
                      "deadline_exceeded", message)
            )  # fmt: skip
    return ended


def find_orphans(session: Session, *, now: datetime) -> list[Orphan]:
    """Running runs whose lease is over."""
    rows = session.execute(
        sa.select(Run.id, Run.uid, Run.worker, Run.attempt)
        .where(IS_RUNNING, Run.lease_until < now)
        .limit(BATCH)
    )
    return [Orphan(*row) for row in rows]


def take_from_dead(
    session: Session,
    orphan: Orphan,
    *,
    text: str,
    has_begun: bool,
    max_attempts: int,
    now: datetime,
) -> Ended | Ring | None:
    """Queue an orphan that had not begun to answer again; end one that had, keeping its text.

    None when its worker, or another reaper, moved it meanwhile.
    """
    run = session.get(Run, orphan.run_id, populate_existing=True)
    if run is None:
        return None
    still = sa.and_(
        Run.id == orphan.run_id, Run.state == RunState.RUNNING, Run.lease_until < now,
        Run.attempt == orphan.attempt, Run.worker == orphan.worker,
    )  # fmt: skip
    can_retry = not has_begun and orphan.attempt < max_attempts and run.deadline_at > now
    if can_retry and run.cancel_requested_at is None:
        moved = session.execute(
            sa.update(Run).where(still)
            .values(state=RunState.QUEUED, worker=None, lease_until=None, rung_at=now,
                    error=WORKER_LOST, error_code=None)
            .execution_options(synchronize_session=False)
        )  # fmt: skip
        return Ring(run.id, orphan.attempt) if moved.rowcount == 1 else None  # type: ignore[attr-defined]
    is_cancelled = run.cancel_requested_at is not None
    state = RunState.CANCELLED if is_cancelled else RunState.FAILED
    ended = Ended(
        run.id, run.uid, run.reply_to, state,
        "cancelled" if is_cancelled else "error",
        None if is_cancelled else "worker_lost",
        None if is_cancelled else WORKER_LOST,
    )  # fmt: skip
    moved = session.execute(
        sa.update(Run)
        .where(still)
        .values(
            state=state, finish_reason=ended.finish_reason, error_code=ended.error_code,
            error=ended.error, answer_text=text, finished_at=now, lease_until=None,
        )
        .execution_options(synchronize_session=False)
    )  # fmt: skip
    if moved.rowcount != 1:  # type: ignore[attr-defined]
        return None
    usage.record(session, run, state=state, tokens=Usage(), now=now)
    return ended
