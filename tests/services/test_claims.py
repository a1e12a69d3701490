"""Moving runs: of two workers one wins, and nothing is counted twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from app.core.domain.runs import RunState, Usage
from app.core.ids import new_client_id, new_uid
from app.core.models import Node, Replica, Run, UsageHour, UsageRecord
from app.core.services import beat_sql, claims, placement, reaper, relay
from app.core.services.claims import Claim, NotClaimed, Result
from app.core.services.reaper import Ring
from tests.fixtures.accounts import Person

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DONE = Result(RunState.SUCCEEDED, "stop", "Hello", usage=Usage(3, 5), first_chunk_at=NOON)


@pytest.fixture
def replica(session: Session, owner: Person) -> Replica:
    node = Node(
        client_id=new_client_id(), account_id=owner.id, name="n", last_beat_at=NOON,
        created_at=NOON, updated_at=NOON,
    )  # fmt: skip
    session.add(node)
    session.flush()
    row = Replica(
        node_id=node.id, model_name="m", served_name="m", engine="vllm", state="ready",
        endpoint_url="http://127.0.0.1:9", concurrency=2, created_at=NOON, updated_at=NOON,
    )  # fmt: skip
    session.add(row)
    session.commit()
    return row


def make_run(session: Session, owner: Person, **changes: object) -> int:
    values = {
        "uid": new_uid(), "account_id": owner.id, "door": "test", "kind": "chat",
        "model_name": "m", "request": {"model": "m", "kind": "chat"}, "state": "queued",
        "created_at": NOON, "rung_at": NOON, "deadline_at": NOON + timedelta(hours=1),
    }  # fmt: skip
    run = Run(**{**values, **changes})
    session.add(run)
    session.commit()
    return run.id


def claim(
    session: Session, *run_ids: int, worker: str = "w", now: datetime = NOON
) -> list[Claim | NotClaimed]:
    claims.lock_claims(session)
    found = claims.claim_runs(
        session, run_ids, worker=worker, lease_seconds=15, now=now,
        candidates=placement.list_candidates(session, now=NOON, offline_after_seconds=90),
    )  # fmt: skip
    session.commit()
    return found


def finish(
    session: Session, *claimed: Claim, now: datetime = NOON
) -> list[claims.Ended | None]:
    ended = claims.finish_many(session, [(one, DONE) for one in claimed], now=now)
    session.commit()
    return ended


def claimed(found: list[Claim | NotClaimed]) -> list[Claim]:
    return [one for one in found if isinstance(one, Claim)]


@pytest.mark.usefixtures("replica")
def test_only_one_worker_gets_a_run(
    session: Session, sessions: sessionmaker[Session], owner: Person
) -> None:
    run_id = make_run(session, owner)

    def try_to_claim(worker: str) -> int:
        with sessions() as own:
            return len(claimed(claim(own, run_id, worker=worker)))

    with ThreadPoolExecutor(6) as pool:
        wins = list(pool.map(try_to_claim, "abcdef"))
    assert sum(wins) == 1


@pytest.mark.usefixtures("replica")
def test_places_are_never_given_twice_however_many_claim_at_once(
    session: Session, sessions: sessionmaker[Session], owner: Person
) -> None:
    ids = [make_run(session, owner) for _ in range(8)]

    def try_to_claim(run_id: int) -> int:
        with sessions() as own:
            return len(claimed(claim(own, run_id)))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(try_to_claim, ids)) == 2


@pytest.mark.usefixtures("replica")
def test_a_run_that_finds_all_places_taken_stays_queued(
    session: Session, owner: Person
) -> None:
    ids = [make_run(session, owner) for _ in range(3)]
    found = claim(session, *ids)
    assert [one.run_id for one in claimed(found)] == ids[:2]
    assert [one for one in found if isinstance(one, NotClaimed)] == [NotClaimed(ids[2], "full")]


def test_a_run_that_nobody_serves_ends_once_it_has_waited_a_moment(
    session: Session, owner: Person
) -> None:
    run_id = make_run(session, owner)
    assert claim(session, run_id) == [NotClaimed(run_id, "unserved")]
    [left] = claim(session, run_id, now=NOON + timedelta(seconds=11))
    assert isinstance(left, NotClaimed)
    assert left.ended is not None
    assert left.ended.error_code == "no_capacity"
    assert session.get_one(Run, run_id, populate_existing=True).state == "failed"


@pytest.mark.usefixtures("replica")
def test_a_run_is_finished_once_and_counted_once(session: Session, owner: Person) -> None:
    [mine] = claimed(claim(session, make_run(session, owner)))
    assert [one is not None for one in finish(session, mine)] == [True]
    assert finish(session, mine, now=NOON + timedelta(seconds=1)) == [None]
    assert session.scalar(sa.select(sa.func.count()).select_from(UsageRecord)) == 1
    hour = session.scalars(sa.select(UsageHour)).one()
    assert (hour.runs, hour.input_tokens, hour.output_tokens) == (1, 3, 5)


@pytest.mark.usefixtures("replica")
def test_of_a_batch_only_the_lost_run_is_lost(session: Session, owner: Person) -> None:
    first, second = claimed(claim(session, make_run(session, owner), make_run(session, owner)))
    session.execute(sa.update(Run).where(Run.id == first.run_id).values(worker="thief"))
    session.commit()
    lost, kept = finish(session, first, second)
    assert lost is None
    assert kept is not None
    assert session.scalar(sa.select(sa.func.count()).select_from(UsageRecord)) == 1


@pytest.mark.usefixtures("replica")
def test_a_handed_on_run_is_queued_with_what_it_tried(session: Session, owner: Person) -> None:
    [mine] = claimed(claim(session, make_run(session, owner)))
    assert claims.hand_on(session, mine, error="boom", now=NOON)
    session.commit()
    run = session.get_one(Run, mine.run_id, populate_existing=True)
    assert (run.state, run.tried_replicas) == ("queued", [mine.candidate.replica_id])
    assert not claims.hand_on(session, mine, error="boom", now=NOON)


@pytest.mark.usefixtures("replica")
def test_a_run_whose_node_was_not_asked_may_go_to_it_again(
    session: Session, owner: Person
) -> None:
    [mine] = claimed(claim(session, make_run(session, owner)))
    assert claims.hand_on(session, mine, error="boom", now=NOON, was_asked=False)
    session.commit()
    assert session.get_one(Run, mine.run_id, populate_existing=True).tried_replicas == []
    assert len(claimed(claim(session, mine.run_id))) == 1


def test_a_node_has_moved_when_another_process_holds_it(
    session: Session, replica: Replica
) -> None:
    node_id = replica.node_id
    relay.attach_relay(session, node_id, "unix:/new", now=NOON)
    assert relay.has_moved(session, node_id, "unix:/old")
    assert not relay.has_moved(session, node_id, "unix:/new")
    assert not relay.has_moved(session, node_id, None)
    relay.detach_relay(session, node_id, "unix:/new")
    assert not relay.has_moved(session, node_id, "unix:/old")


def test_failures_put_a_replica_aside_for_longer_each_time(
    session: Session, replica: Replica
) -> None:
    pauses = []
    for _ in range(8):
        claims.note_failure(session, replica.id, now=NOON)
        session.commit()
        session.refresh(replica)
        assert replica.backoff_until is not None
        pauses.append((replica.backoff_until - NOON).total_seconds())
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert placement.list_candidates(session, now=NOON, offline_after_seconds=90) == []
    claims.note_success(session, replica.id)
    assert placement.list_candidates(session, now=NOON, offline_after_seconds=90)


@pytest.mark.parametrize(
    ("mark", "serves"),
    [("valid", [False]), ("warning", [True]), ("invalid", [])],
)
def test_a_node_marked_warning_serves_with_doubt_and_an_invalid_one_not(
    session: Session, replica: Replica, mark: str, serves: list[bool]
) -> None:
    session.get_one(Node, replica.node_id).valid_status = mark
    session.flush()
    found = placement.list_candidates(session, now=NOON, offline_after_seconds=90)
    assert [one.is_doubted for one in found] == serves


@pytest.mark.usefixtures("replica")
@pytest.mark.parametrize(("has_begun", "state"), [(False, "queued"), (True, "failed")])
def test_an_orphan_is_queued_again_unless_it_had_begun(
    session: Session, owner: Person, has_begun: bool, state: str
) -> None:
    [mine] = claimed(claim(session, make_run(session, owner)))
    later = NOON + timedelta(seconds=16)
    [orphan] = reaper.find_orphans(session, now=later)
    taken = reaper.take_from_dead(
        session, orphan, text="Hel", has_begun=has_begun, max_attempts=3, now=later
    )
    session.commit()
    run = session.get_one(Run, mine.run_id, populate_existing=True)
    assert run.state == state
    assert isinstance(taken, Ring) is (not has_begun)
    assert run.answer_text == ("Hel" if has_begun else None)
    assert finish(session, mine) == [None], "the dead worker is too late"


@pytest.mark.usefixtures("replica")
def test_a_lease_that_is_renewed_keeps_its_run(session: Session, owner: Person) -> None:
    [mine] = claimed(claim(session, make_run(session, owner)))
    later = NOON + timedelta(seconds=14)
    assert claims.renew_leases(session, "w", lease_seconds=15, now=later) == [
        (mine.run_id, False)
    ]
    session.commit()
    assert reaper.find_orphans(session, now=NOON + timedelta(seconds=20)) == []


@pytest.mark.usefixtures("replica")
def test_as_many_waiting_runs_are_rung_as_there_are_places(
    session: Session, owner: Person
) -> None:
    ids = [make_run(session, owner) for _ in range(5)]
    found = placement.list_candidates(session, now=NOON, offline_after_seconds=90)
    later = NOON + timedelta(seconds=5)
    ready = reaper.find_ready(session, lambda _: found, rung_before=later, grace_until=NOON)
    assert [one.run_id for one in ready] == ids[:2]


def test_an_overdue_run_ends_with_its_reason(session: Session, owner: Person) -> None:
    make_run(session, owner, deadline_at=NOON)
    [ended] = reaper.end_overdue(session, now=NOON + timedelta(seconds=1))
    assert ended.error_code == "deadline_exceeded"
    assert reaper.end_overdue(session, now=NOON + timedelta(seconds=1)) == []


@pytest.mark.postgres
def test_claims_do_not_wait_for_heartbeats(sessions: sessionmaker[Session]) -> None:
    with sessions() as ingester, sessions() as worker:
        beat_sql.for_dialect("postgresql").serialise(ingester)
        worker.execute(sa.text("SET LOCAL lock_timeout = '2s'"))
        claims.lock_claims(worker)
