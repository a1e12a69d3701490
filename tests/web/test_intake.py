"""Accepting several runs at once: one transaction, one ring, and each its own fate."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import redis
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from app.core.services import runs
from app.web.intake import MOST_AT_ONCE, Intake
from tests.fixtures.waiting import eventually


class Bell:
    """The queue's place: notes who was rung for, and together with whom."""

    def __init__(self) -> None:
        self.rings: list[list[str]] = []
        self.error: Exception | None = None
        self.may_ring = threading.Event()
        self.may_ring.set()

    def ring_all(self, run_ids: list[str], *, timeout_seconds: int) -> None:
        self.may_ring.wait(20)
        self.rings.append(run_ids)
        if self.error is not None:
            raise self.error


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
def intake(bell: Bell) -> Intake:
    return Intake(bell, 60.0)  # type: ignore[arg-type]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> sa.Table:
    """Rows of one column stand for those of runs."""
    table = sa.Table(
        "t", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("uid", sa.Text, unique=True),
    )  # fmt: skip
    monkeypatch.setattr(runs, "_INSERT_RUN", sa.insert(table).returning(table.c.id))
    monkeypatch.setattr(
        runs, "_INSERT_RUNS", sa.insert(table).returning(table.c.id, table.c.uid)
    )
    return table


@pytest.fixture
def engine(table: sa.Table, tmp_path: Any) -> Iterator[sa.Engine]:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/t.db")
    table.metadata.create_all(engine)
    yield engine
    engine.dispose()


def stored(engine: sa.Engine, table: sa.Table) -> dict[str, int]:
    with engine.connect() as connection:
        return {row.uid: row.id for row in connection.execute(sa.select(table))}


def all_at_once(
    intake: Intake, engine: sa.Engine, bell: Bell, uids: list[str], **more: Any
) -> list[Future[tuple[int, Any]]]:
    """Accept rows that wait together: the first holds all others up while it rings."""
    bell.may_ring.clear()
    pool = ThreadPoolExecutor(len(uids))
    futures = [pool.submit(intake.accept, engine, {"uid": uid}, **more) for uid in uids]
    bell.may_ring.set()
    pool.shutdown()
    return futures


def test_each_caller_gets_the_id_of_its_own_row(
    intake: Intake, engine: sa.Engine, table: sa.Table, bell: Bell
) -> None:
    uids = [f"u{number}" for number in range(40)]
    futures = all_at_once(intake, engine, bell, uids)
    found = {uid: future.result()[0] for uid, future in zip(uids, futures, strict=True)}
    assert found == stored(engine, table)
    assert sorted(int(one) for ring in bell.rings for one in ring) == sorted(found.values())


def test_a_row_is_committed_before_its_bell_rings(
    intake: Intake, engine: sa.Engine, table: sa.Table, bell: Bell
) -> None:
    bell.may_ring.clear()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(intake.accept, engine, {"uid": "a"})
        eventually(lambda: "a" in stored(engine, table))
        assert not future.done()
        bell.may_ring.set()
        assert future.result()[0] == stored(engine, table)["a"]


def test_a_batch_has_a_limit(intake: Intake, engine: sa.Engine, bell: Bell) -> None:
    all_at_once(intake, engine, bell, [f"u{number}" for number in range(50)])
    assert max(map(len, bell.rings)) <= MOST_AT_ONCE


def test_one_bad_row_spoils_no_other(
    intake: Intake, engine: sa.Engine, table: sa.Table, bell: Bell
) -> None:
    intake.accept(engine, {"uid": "taken"})
    uids = ["a", "taken", "b", "c"]
    futures = dict(zip(uids, all_at_once(intake, engine, bell, uids), strict=True))
    with pytest.raises(IntegrityError):
        futures.pop("taken").result()
    assert all(future.result()[0] for future in futures.values())
    assert stored(engine, table).keys() == {"taken", "a", "b", "c"}


def test_what_is_written_with_a_run_stands_or_falls_with_it(
    intake: Intake, engine: sa.Engine, table: sa.Table, bell: Bell
) -> None:
    def also(connection: sa.Connection, run_id: int) -> str:
        connection.execute(sa.insert(table), {"uid": f"beside {run_id}"})
        return "kept"

    def broken(connection: sa.Connection, run_id: int) -> None:
        connection.execute(sa.insert(table), {"uid": "good"})

    run_id, result = intake.accept(engine, {"uid": "good"}, also)
    assert result == "kept"
    with pytest.raises(IntegrityError):
        intake.accept(engine, {"uid": "bad"}, broken)
    assert stored(engine, table).keys() == {"good", f"beside {run_id}"}
    assert bell.rings == [[str(run_id)]]


def test_without_redis_a_run_is_accepted_all_the_same(
    intake: Intake, engine: sa.Engine, table: sa.Table, bell: Bell
) -> None:
    bell.error = redis.ConnectionError("away")
    run_id, _ = intake.accept(engine, {"uid": "a"})
    assert stored(engine, table) == {"a": run_id}


def test_a_caller_that_is_interrupted_lets_the_others_go(
    intake: Intake, engine: sa.Engine, bell: Bell
) -> None:
    bell.error = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        intake.accept(engine, {"uid": "a"})
    bell.error = None
    assert intake.accept(engine, {"uid": "b"})[0]
