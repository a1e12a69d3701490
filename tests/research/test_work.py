"""Claims of research jobs: one worker has a job, and who lost it writes nothing more."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.domain.research import ResearchState, StepKind, StepState
from app.core.models import ResearchJob, ResearchStep
from app.core.services import research, research_work
from app.core.services.research_models import Chosen
from app.core.services.research_work import ResearchClaim
from tests.fixtures.accounts import Person

NOW = utc_now()
LEASE = 10.0
Claim = Callable[..., ResearchClaim | None]


@pytest.fixture
def job_id(sessions: sessionmaker[Session], owner: Person) -> int:
    """A job that waits."""
    with sessions.begin() as session:
        return ask(session, owner).job_id


def ask(session: Session, owner: Person) -> research.Asked:
    return research.ask(
        session, owner.identity, question_text="Why?", image_file=None,
        chosen=Chosen("m", 2048, None), reply_to=None, timeout_seconds=60, now=NOW,
    )  # fmt: skip


def claim(
    session: Session, job_id: int, worker: str = "one", seconds: float = 0
) -> ResearchClaim | None:
    return research_work.claim_job(
        session,
        job_id,
        worker=worker,
        lease_seconds=LEASE,
        now=NOW + timedelta(seconds=seconds),
    )


def held(session: Session, mine: ResearchClaim) -> bool:
    return research_work.hold(session, mine, lease_seconds=LEASE, now=NOW)


def finish(session: Session, mine: ResearchClaim) -> bool:
    return research_work.finish_job(
        session, mine, state=ResearchState.SUCCEEDED, answer_text="So.", sources=[],
        error_code=None, error=None, now=NOW,
    )  # fmt: skip


def test_one_worker_has_a_job(session: Session, job_id: int) -> None:
    mine = claim(session, job_id)

    assert mine is not None
    assert mine.attempt == 1
    assert claim(session, job_id, "two") is None
    assert held(session, mine)


def test_a_job_is_taken_from_a_silent_worker_which_then_writes_nothing(
    session: Session, job_id: int
) -> None:
    lost = claim(session, job_id)
    taken = claim(session, job_id, "two", seconds=LEASE + 1)

    assert lost is not None
    assert taken is not None
    assert taken.attempt == 2
    assert not held(session, lost)
    assert not finish(session, lost)
    assert finish(session, taken)
    assert claim(session, job_id, "three", seconds=99) is None


def test_asking_anew_takes_a_job_from_its_worker(
    session: Session, owner: Person, job_id: int
) -> None:
    lost = claim(session, job_id)
    assert lost is not None
    research_work.add_steps(session, lost, [(StepKind.PLAN, "Plan")])

    asked = research.ask_anew(
        session, owner.identity, job_id, question_text="Why not?", image_file=None,
        chosen=Chosen("m", 2048, None), reply_to=None, timeout_seconds=60, now=NOW,
    )  # fmt: skip

    assert asked.uid != lost.uid
    assert not held(session, lost)
    assert not research_work.is_asked_still(session, lost)
    assert research_work.load_steps(session, job_id) == []
    again = claim(session, job_id)
    assert again is not None
    assert again.question_text == "Why not?"


def test_a_released_job_is_rung_for_at_once(session: Session, job_id: int) -> None:
    mine = claim(session, job_id)
    assert mine is not None
    before = NOW - timedelta(seconds=5)
    assert research_work.find_unheld(session, rung_before=before, now=NOW) == []

    research_work.release(session, mine, now=NOW)

    assert research_work.find_unheld(session, rung_before=before, now=NOW) == [job_id]
    assert research_work.find_unheld(session, rung_before=before, now=NOW) == []
    assert claim(session, job_id, "two") is not None


def test_steps_keep_their_order_and_their_results(session: Session, job_id: int) -> None:
    mine = claim(session, job_id)
    assert mine is not None
    research_work.add_steps(session, mine, [(StepKind.PLAN, "Plan")])
    kinds = [(StepKind.ANSWER, "A?"), (StepKind.ANSWER, "B?"), (StepKind.WRITE, "End")]
    research_work.add_steps(session, mine, kinds)

    plan = research_work.load_steps(session, job_id)[0]
    research_work.begin_step(session, plan, now=NOW)
    research_work.end_step(
        session, plan, state=StepState.DONE, result="1.", data={"questions": ["A?"]}, now=NOW
    )

    steps = research_work.load_steps(session, job_id)
    assert [step.name for step in steps] == ["plan", "answer 1", "answer 2", "write"]
    assert (steps[0].state, steps[0].result) == (StepState.DONE, "1.")
    assert [view.name for view in research.list_steps(session, job_id)] == [
        s.name for s in steps
    ]


def test_deleting_a_job_deletes_its_steps(session: Session, job_id: int) -> None:
    mine = claim(session, job_id)
    assert mine is not None
    research_work.add_steps(session, mine, [(StepKind.PLAN, "Plan")])

    research.delete_job(session, job_id)

    assert session.scalar(sa.select(sa.func.count()).select_from(ResearchStep)) == 0
    assert session.get(ResearchJob, job_id, populate_existing=True) is None
    assert not held(session, mine)
