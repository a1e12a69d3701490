"""Research jobs as their owners see them: ask, look at, ask anew, delete."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.accounts import Identity
from app.core.domain.errors import NotFound, RateLimited
from app.core.domain.research import ResearchState, StepState
from app.core.domain.runs import RunState
from app.core.ids import new_uid
from app.core.models import Account, ResearchJob, ResearchStep, Run
from app.core.services.research_models import Chosen

MOST_LIVE_JOBS = 16
_LIVE = (ResearchState.QUEUED, ResearchState.RUNNING)


@dataclass(frozen=True, slots=True)
class SourceView:
    """A source as a report's reader sees it."""

    number: int
    title: str
    url: str


@dataclass(frozen=True, slots=True)
class StepView:
    """A step as its owner sees it. `name` is unique in the job: `plan`, `answer 2`, …"""

    name: str
    kind: str
    title: str
    state: str
    error: str | None
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class ResearchView:
    """A job as its owner sees it. `answer_text` is None until it is over."""

    id: int
    uid: str
    account_id: int
    username: str
    question_text: str
    answer_text: str | None
    image_file: str | None
    model_name: str
    state: str
    error_code: str | None
    error: str | None
    sources: tuple[SourceView, ...]
    created_at: datetime
    asked_at: datetime
    finished_at: datetime | None

    @property
    def is_over(self) -> bool:
        return ResearchState(self.state).is_final

    @property
    def stream_id(self) -> str:
        return stream_id(self.uid)


@dataclass(frozen=True, slots=True)
class Asked:
    """A job that is in the database and wants its bell rung."""

    job_id: int
    uid: str

    @property
    def stream_id(self) -> str:
        return stream_id(self.uid)


@dataclass(frozen=True, slots=True)
class LiveStepRun:
    """A run that works for an asking that nobody wants any more."""

    run_id: int
    uid: str


def stream_id(uid: str) -> str:
    """The stream of one asking."""
    return f"research-{uid}"


def step_name(kind: str, position: int) -> str:
    """What streams call a step; answers are counted from 1."""
    return f"{kind} {position}" if kind == "answer" else kind


def ask(
    session: Session,
    caller: Identity,
    *,
    question_text: str,
    image_file: str | None,
    chosen: Chosen,
    reply_to: str | None,
    timeout_seconds: float,
    now: datetime,
) -> Asked:
    """Accept a question. The caller commits, then rings. Raises RateLimited."""
    _check_rate(session, caller)
    job = ResearchJob(
        account_id=caller.account_id, credential_id=caller.credential_id,
        created_at=now, **_asking(question_text, image_file, chosen, reply_to, timeout_seconds, now),
    )  # fmt: skip
    session.add(job)
    session.flush()
    return Asked(job.id, job.uid)


def ask_anew(
    session: Session,
    caller: Identity,
    job_id: int,
    *,
    question_text: str,
    image_file: str | None,
    chosen: Chosen,
    reply_to: str | None,
    timeout_seconds: float,
    now: datetime,
) -> Asked:
    """Forget a job's answer and ask it again, with this question. Raises RateLimited.

    Whoever still works on the earlier asking loses it. End its runs (`live_runs`) first.
    """
    _check_rate(session, caller, besides=job_id)
    session.execute(sa.delete(ResearchStep).where(ResearchStep.job_id == job_id))
    values = _asking(question_text, image_file, chosen, reply_to, timeout_seconds, now)
    session.execute(
        sa.update(ResearchJob)
        .where(ResearchJob.id == job_id)
        .values(
            **values, worker=None, lease_until=None, answer_text=None,
            error_code=None, error=None, finished_at=None,
        )
    )  # fmt: skip
    return Asked(job_id, values["uid"])


def _asking(
    question_text: str, image_file: str | None, chosen: Chosen, reply_to: str | None,
    timeout_seconds: float, now: datetime,
) -> dict[str, Any]:  # fmt: skip
    return {
        "uid": new_uid(),
        "question_text": question_text,
        "image_file": image_file,
        "model_name": chosen.writer,
        "vision_model_name": chosen.viewer,
        "context_tokens": chosen.context_tokens,
        "state": ResearchState.QUEUED,
        "reply_to": reply_to,
        "attempt": 0,
        "sources": [],
        "asked_at": now,
        "rung_at": now,
        "deadline_at": now + timedelta(seconds=timeout_seconds),
    }


def _check_rate(session: Session, caller: Identity, besides: int = 0) -> None:
    live = session.scalar(
        sa.select(sa.func.count()).where(
            ResearchJob.account_id == caller.account_id,
            ResearchJob.state.in_(_LIVE),
            ResearchJob.id != besides,
        )
    )
    if live is not None and live >= MOST_LIVE_JOBS:
        raise RateLimited(
            f"{live} of your research jobs are under way. Wait for one to end.",
            retry_after_seconds=60,
        )


def _query() -> sa.Select[ResearchJob, str]:
    return sa.select(ResearchJob, Account.username).join(
        Account, Account.id == ResearchJob.account_id
    )


def _view(row: sa.Row[ResearchJob, str]) -> ResearchView:
    job, username = row
    return ResearchView(
        id=job.id, uid=job.uid, account_id=job.account_id, username=username,
        question_text=job.question_text, answer_text=job.answer_text,
        image_file=job.image_file, model_name=job.model_name, state=job.state,
        error_code=job.error_code, error=job.error,
        sources=tuple(SourceView(one["number"], one["title"], one["url"]) for one in job.sources),
        created_at=job.created_at, asked_at=job.asked_at, finished_at=job.finished_at,
    )  # fmt: skip


def list_jobs(
    session: Session,
    caller: Identity,
    *,
    account_id: int | None = None,
    page: int,
    page_size: int,
) -> tuple[list[ResearchView], int]:
    """Jobs newest first, and how many there are: the caller's own; an admin's are everybody's.

    `account_id` narrows an admin's list; check first whether the caller may ask for it.
    """
    wanted = account_id if account_id is not None or caller.is_admin else caller.account_id
    mine = sa.true() if wanted is None else ResearchJob.account_id == wanted
    total = session.scalar(sa.select(sa.func.count()).select_from(ResearchJob).where(mine)) or 0
    rows = session.execute(
        _query().where(mine).order_by(ResearchJob.id.desc())
        .limit(page_size).offset((page - 1) * page_size)
    )  # fmt: skip
    return [_view(row) for row in rows], total


def get_job(session: Session, caller: Identity, job_id: int) -> ResearchView:
    """One job, fresh from the database. Raises NotFound for somebody else's."""
    found = find_job(session, job_id)
    if found is None or not caller.may_act_for(found.account_id):
        raise NotFound("Not found.")
    return found


def find_job(session: Session, job_id: int) -> ResearchView | None:
    """One job by its row id, whoever owns it."""
    query = _query().where(ResearchJob.id == job_id)
    row = session.execute(query.execution_options(populate_existing=True)).first()
    return _view(row) if row is not None else None


def list_steps(session: Session, job_id: int) -> list[StepView]:
    """A job's steps so far, in order."""
    steps = session.scalars(
        sa.select(ResearchStep)
        .where(ResearchStep.job_id == job_id)
        .order_by(ResearchStep.position)
        .execution_options(populate_existing=True)
    ).all()
    answers = 0
    views = []
    for step in steps:
        answers += step.kind == "answer"
        views.append(
            StepView(
                step_name(step.kind, answers), step.kind, step.title, step.state, step.error,
                step.started_at, step.finished_at,
            )
        )  # fmt: skip
    return views


def live_runs(session: Session, job_id: int) -> list[LiveStepRun]:
    """Runs that still work for a job: cancel them when it is deleted or asked anew."""
    ids = [
        run["id"]
        for runs in session.scalars(
            sa.select(ResearchStep.runs).where(
                ResearchStep.job_id == job_id, ResearchStep.state == StepState.RUNNING
            )
        )
        for run in runs
    ]
    rows = session.execute(
        sa.select(Run.id, Run.uid).where(
            Run.id.in_(ids), Run.state.in_((RunState.QUEUED, RunState.RUNNING))
        )
    )
    return [LiveStepRun(*row) for row in rows]


def delete_job(session: Session, job_id: int) -> None:
    """Forget a job. What its runs used stays counted."""
    session.execute(sa.delete(ResearchStep).where(ResearchStep.job_id == job_id))
    session.execute(sa.delete(ResearchJob).where(ResearchJob.id == job_id))
