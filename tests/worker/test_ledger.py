"""What claims know of the network, which changes while they are made."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.ids import new_uid
from app.core.models import Run
from app.core.services import placement
from app.core.services.claims import Claim, NotClaimed
from tests import fleet
from tests.fixtures.accounts import Person
from worker import ledger as ledgers
from worker.ledger import Ledger


@pytest.fixture
def ledger(
    sessions: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ledger]:
    """A ledger that looks at the network once a minute, if nothing makes it look again."""
    monkeypatch.setattr(ledgers, "CANDIDATE_SECONDS", 60.0)
    monkeypatch.setattr(ledgers, "LOOK_AGAIN_SECONDS", 0.0)
    made = Ledger(sessions, worker="w", lease_seconds=15, offline_after_seconds=9e5)
    yield made
    made.close()


def make_run(sessions: sessionmaker[Session], owner: Person, model: str) -> int:
    now = utc_now()
    with sessions.begin() as session:
        run = Run(
            uid=new_uid(), account_id=owner.id, door="test", kind="chat", model_name=model,
            request={"model": model, "kind": "chat"}, state="queued", created_at=now, rung_at=now,
            deadline_at=now + timedelta(minutes=5),
        )  # fmt: skip
        session.add(run)
        session.flush()
        return run.id


def test_a_model_that_is_first_served_a_moment_ago_gets_its_run_at_once(
    ledger: Ledger, sessions: sessionmaker[Session], owner: Person
) -> None:
    node = fleet.make_node(sessions, owner.id)
    fleet.serve(sessions, node, "old")
    assert isinstance(ledger.claim(make_run(sessions, owner, "old")), Claim)
    run_id = make_run(sessions, owner, "new")
    assert ledger.claim(run_id) == NotClaimed(run_id, "unserved")

    fleet.serve(sessions, node, "new")

    assert isinstance(ledger.claim(run_id), Claim)


def test_what_was_looked_up_while_a_replica_failed_serves_one_claim_only(
    ledger: Ledger,
    sessions: sessionmaker[Session],
    owner: Person,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet.serve(sessions, fleet.make_node(sessions, owner.id), "a", "b", "c")
    list_candidates = placement.list_candidates
    looks: list[int] = []

    def look(*arguments: Any, **options: Any) -> list[placement.Candidate]:
        found = list_candidates(*arguments, **options)
        if not looks:
            ledger.forget_candidates()
        looks.append(len(found))
        return found

    monkeypatch.setattr(placement, "list_candidates", look)
    for model in "abc":
        assert isinstance(ledger.claim(make_run(sessions, owner, model)), Claim)
    assert looks == [3, 3]
