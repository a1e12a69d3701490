"""Research jobs as workers move them: claim, keep, step by step, finish.

`uid`, `worker` and `attempt` together name one claim. Every write of a claim first renews
its lease in the same transaction, so a worker that lost its job can write nothing more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.accounts import Identity, Role
from app.core.domain.research import ResearchState, StepKind, StepState
from app.core.domain.runs import RunRequest
from app.core.models import Account, ResearchJob, ResearchStep, Run
from app.core.services import runs
from app.core.services.research import step_name, stream_id
from app.core.services.runs import Availability, RunLimits

BATCH = 50


@dataclass(frozen=True, slots=True)
class ResearchClaim:
    """A job that this worker drives."""

    job_id: int
    uid: str
    worker: str
    attempt: int
    caller: Identity
    question_text: str
    image_file: str | None
    model_name: str
    vision_model_name: str | None
    context_tokens: int | None
    reply_to: str | None
    deadline_at: datetime

    @property
    def stream_id(self) -> str:
        return stream_id(self.uid)


@dataclass(frozen=True, slots=True)
class StepRun:
    """A run of a step."""

    run_id: int
    uid: str


@dataclass(slots=True)
class Step:
    """A step as its driver works on it."""

    id: int
    kind: StepKind
    name: str
    title: str
    state: StepState
    runs: list[StepRun]
    result: str
    data: dict[str, Any]
    error: str | None


def claim_job(
    session: Session, job_id: int, *, worker: str, lease_seconds: float, now: datetime
) -> ResearchClaim | None:
    """Take a job that waits, or whose worker's lease ran out; None when neither is so."""
    job = session.get(ResearchJob, job_id, populate_existing=True)
    if job is None or job.state not in (ResearchState.QUEUED, ResearchState.RUNNING):
        return None
    account = session.get_one(Account, job.account_id, populate_existing=True)
    if not account.is_active:
        _close(session, job, now)
        return None
    is_free = sa.or_(
        ResearchJob.state == ResearchState.QUEUED,
        sa.and_(ResearchJob.state == ResearchState.RUNNING, ResearchJob.lease_until < now),
    )
    moved = session.execute(
        sa.update(ResearchJob)
        .where(
            ResearchJob.id == job_id, ResearchJob.uid == job.uid,
            ResearchJob.attempt == job.attempt, is_free,
        )
        .values(
            state=ResearchState.RUNNING, worker=worker, attempt=job.attempt + 1,
            lease_until=now + timedelta(seconds=lease_seconds),
        )
        .execution_options(synchronize_session=False)
    )  # fmt: skip
    if moved.rowcount != 1:  # type: ignore[attr-defined]
        return None
    return ResearchClaim(
        job_id=job.id, uid=job.uid, worker=worker, attempt=job.attempt + 1,
        caller=_identity(account, job.credential_id), question_text=job.question_text,
        image_file=job.image_file, model_name=job.model_name,
        vision_model_name=job.vision_model_name, context_tokens=job.context_tokens,
        reply_to=job.reply_to, deadline_at=job.deadline_at,
    )  # fmt: skip


def _close(session: Session, job: ResearchJob, now: datetime) -> None:
    """Nobody works for an account that is gone."""
    session.execute(
        sa.update(ResearchJob)
        .where(ResearchJob.id == job.id, ResearchJob.uid == job.uid)
        .values(
            state=ResearchState.FAILED, error_code="forbidden", error="The account is closed.",
            finished_at=now, lease_until=None,
        )
        .execution_options(synchronize_session=False)
    )  # fmt: skip


def _identity(account: Account, credential_id: int | None) -> Identity:
    return Identity(
        account_id=account.id, account_uid=account.uid, username=account.username,
        email=account.email or "", role=Role(account.role), credential_id=credential_id,
    )  # fmt: skip


def hold(
    session: Session, claim: ResearchClaim, *, lease_seconds: float, now: datetime
) -> bool:
    """Renew the lease; False when the job is not this worker's any more, or its owner is gone."""
    is_active = sa.exists().where(
        Account.id == ResearchJob.account_id, Account.is_active.is_(True)
    )
    moved = session.execute(
        sa.update(ResearchJob)
        .where(*_mine(claim), is_active)
        .values(lease_until=now + timedelta(seconds=lease_seconds))
        .execution_options(synchronize_session=False)
    )
    return moved.rowcount == 1  # type: ignore[attr-defined,no-any-return]


def _mine(claim: ResearchClaim) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        ResearchJob.id == claim.job_id,
        ResearchJob.uid == claim.uid,
        ResearchJob.worker == claim.worker,
        ResearchJob.attempt == claim.attempt,
        ResearchJob.state == ResearchState.RUNNING,
    )


def release(session: Session, claim: ResearchClaim, *, now: datetime) -> None:
    """Give a job back, for another worker to take at once."""
    session.execute(
        sa.update(ResearchJob)
        .where(*_mine(claim))
        .values(lease_until=now - timedelta(seconds=1), rung_at=now - timedelta(hours=1))
        .execution_options(synchronize_session=False)
    )


def is_asked_still(session: Session, claim: ResearchClaim) -> bool:
    """Whether this asking is still the job's own: it was not asked anew, deleted or ended."""
    state = session.scalar(
        sa.select(ResearchJob.state).where(
            ResearchJob.id == claim.job_id, ResearchJob.uid == claim.uid
        )
    )
    return state in (ResearchState.QUEUED, ResearchState.RUNNING)


def load_steps(session: Session, job_id: int) -> list[Step]:
    """The job's steps so far, in order."""
    rows = session.scalars(
        sa.select(ResearchStep)
        .where(ResearchStep.job_id == job_id)
        .order_by(ResearchStep.position)
        .execution_options(populate_existing=True)
    ).all()
    steps: list[Step] = []
    answers = 0
    for row in rows:
        answers += row.kind == StepKind.ANSWER
        steps.append(
            Step(
                id=row.id, kind=StepKind(row.kind), name=step_name(row.kind, answers),
                title=row.title, state=StepState(row.state),
                runs=[StepRun(run["id"], run["uid"]) for run in row.runs],
                result=row.result or "", data=row.data or {}, error=row.error,
            )
        )  # fmt: skip
    return steps


def add_steps(
    session: Session, claim: ResearchClaim, steps: Sequence[tuple[StepKind, str]]
) -> None:
    """Append steps (kind, title) to the job's."""
    last = session.scalar(
        sa.select(sa.func.max(ResearchStep.position)).where(ResearchStep.job_id == claim.job_id)
    )
    for position, (kind, title) in enumerate(steps, (last or 0) + 1):
        session.add(
            ResearchStep(
                job_id=claim.job_id, position=position, kind=kind, title=title[:500],
                state=StepState.WAITING, runs=[],
            )
        )  # fmt: skip
    session.flush()


def begin_step(session: Session, step: Step, *, now: datetime) -> None:
    """A step is under way."""
    session.execute(
        sa.update(ResearchStep)
        .where(ResearchStep.id == step.id, ResearchStep.state == StepState.WAITING)
        .values(state=StepState.RUNNING, started_at=now)
    )


def submit_step_run(
    session: Session,
    claim: ResearchClaim,
    step: Step,
    request: RunRequest,
    *,
    limits: RunLimits,
    availability: Availability,
    reply_to: str,
    now: datetime,
) -> StepRun:
    """One more run for a step, in one transaction with the step's knowing of it.

    Raises what `runs.submit_run` raises.
    """
    submitted = runs.submit_run(
        session, claim.caller, request, door="research", limits=limits,
        availability=availability, now=now, reply_to=reply_to,
    )  # fmt: skip
    run = StepRun(submitted.run_id, submitted.uid)
    kept = [{"id": one.run_id, "uid": one.uid} for one in (*step.runs, run)]
    session.execute(sa.update(ResearchStep).where(ResearchStep.id == step.id).values(runs=kept))
    return run


def end_step(
    session: Session,
    step: Step,
    *,
    state: StepState,
    result: str,
    now: datetime,
    data: dict[str, Any] | None = None,
    error: str | None = None,
) -> None:
    """A step is over; its result stays as it is."""
    session.execute(
        sa.update(ResearchStep)
        .where(ResearchStep.id == step.id)
        .values(
            state=state,
            result=result,
            data=data,
            finished_at=now,
            error=error[:500] if error else None,
        )
    )


def finish_job(
    session: Session,
    claim: ResearchClaim,
    *,
    state: ResearchState,
    answer_text: str,
    sources: Sequence[dict[str, Any]],
    error_code: str | None,
    error: str | None,
    now: datetime,
) -> bool:
    """End a job; False when it is not this worker's any more."""
    moved = session.execute(
        sa.update(ResearchJob)
        .where(*_mine(claim))
        .values(
            state=state,
            answer_text=answer_text or None,
            sources=list(sources),
            error_code=error_code,
            error=error[:500] if error else None,
            finished_at=now,
            lease_until=None,
        )
        .execution_options(synchronize_session=False)
    )
    return moved.rowcount == 1  # type: ignore[attr-defined,no-any-return]


def find_unheld(session: Session, *, rung_before: datetime, now: datetime) -> list[int]:
    """Jobs that nobody drives and nobody was rung for lately; they count as rung now."""
    is_free = sa.or_(
        ResearchJob.state == ResearchState.QUEUED,
        sa.and_(ResearchJob.state == ResearchState.RUNNING, ResearchJob.lease_until < now),
    )
    ids = list(
        session.scalars(
            sa.select(ResearchJob.id)
            .where(is_free, ResearchJob.rung_at < rung_before)
            .order_by(ResearchJob.id)
            .limit(BATCH)
        )
    )
    if ids:
        session.execute(
            sa.update(ResearchJob)
            .where(ResearchJob.id.in_(ids), is_free)
            .values(rung_at=now)
            .execution_options(synchronize_session=False)
        )
    return ids


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run stands."""

    state: str
    answer_text: str
    finish_reason: str | None
    error_code: str | None
    error: str | None


def look_at_run(session: Session, run_id: int) -> RunOutcome:
    """A run as the database has it."""
    row = session.execute(
        sa.select(
            Run.state, Run.answer_text, Run.finish_reason, Run.error_code, Run.error
        ).where(Run.id == run_id)
    ).one()
    return RunOutcome(row[0], row[1] or "", row[2], row[3], row[4])
