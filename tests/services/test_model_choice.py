"""Which model the hub gives an idle node."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.models import CatalogModel, Node, NodeAssignment
from app.core.services import model_choice
from tests.dashboard import provider_rows
from tests.dashboard.conftest import Rows
from tests.fixtures.accounts import Person

Choose = Callable[[], dict[str, str]]
INVENTORY = {"engines": ["llamacpp", "tgi"], "memory_bytes": 16_000_000_000}


@pytest.fixture
def rows(sessions: sessionmaker[Session]) -> Rows:
    """Makes rows."""
    return Rows(sessions)


@pytest.fixture
def choose(sessions: sessionmaker[Session]) -> Choose:
    """One round; gives what each node is wanted to serve, by node name."""

    def run() -> dict[str, str]:
        with sessions.begin() as session:
            model_choice.choose_models(session, now=utc_now(), offline_after_seconds=90)
        with sessions() as session:
            pairs = session.execute(
                sa.select(Node.name, NodeAssignment.model_name).join(
                    NodeAssignment, NodeAssignment.node_id == Node.id
                )
            )
            return {row.name: row.model_name for row in pairs}

    return run


def machine(
    rows: Rows, owner: Person, name: str = "atelier", *, gpu_gb: int = 24, **changes: Any
) -> Node:
    node = rows.node(owner, name, **{"inventory": INVENTORY, **changes})
    if gpu_gb:
        rows.device(node, memory_bytes=gpu_gb * 2**30)
    return node


def offer(rows: Rows, name: str, gpu_gb: int | None = None, **changes: Any) -> CatalogModel:
    return provider_rows.add_model(rows, name, min_gpu_memory_gb=gpu_gb, **changes)


def test_the_largest_that_fits_is_chosen(rows: Rows, owner: Person, choose: Choose) -> None:
    for name, needs in (("small", None), ("middle", 8), ("large", 24), ("huge", 48)):
        offer(rows, name, needs)
    machine(rows, owner, "big", gpu_gb=24)
    machine(rows, owner, "little", gpu_gb=12)
    machine(rows, owner, "cpu", gpu_gb=0)

    assert choose() == {"big": "large", "little": "middle", "cpu": "small"}


def test_several_gpus_add_up(rows: Rows, owner: Person, choose: Choose) -> None:
    offer(rows, "huge", 48)
    rows.device(machine(rows, owner, gpu_gb=24), index=1, memory_bytes=24 * 2**30)

    assert choose() == {"atelier": "huge"}


def test_what_needs_more_memory_or_another_engine_is_left_out(
    rows: Rows, owner: Person, choose: Choose
) -> None:
    offer(rows, "fits", 1)
    offer(rows, "too much memory", 8, min_memory_mb=32_000)
    offer(rows, "for vllm", 8, engine_type=2)
    offer(rows, "no engine", 8, engine_type=5)
    offer(rows, "withdrawn", 8, is_active=False)
    machine(rows, owner)

    assert choose() == {"atelier": "fits"}


@pytest.mark.parametrize(
    "changes",
    [
        {"wanted_status": "maintenance"},
        {"valid_status": "invalid"},
        {"valid_status": "warning"},
        {"last_beat_at": utc_now() - timedelta(hours=1)},
        {"last_beat_at": None},
        {"removed_at": utc_now()},
        {"inventory": None},
    ],
)
def test_a_node_that_is_not_in_service_is_left_alone(
    rows: Rows, owner: Person, choose: Choose, changes: dict[str, Any]
) -> None:
    offer(rows, "small")
    machine(rows, owner, **changes)

    assert choose() == {}


def test_a_node_that_serves_or_was_asked_to_is_left_alone(
    rows: Rows, owner: Person, choose: Choose
) -> None:
    small = offer(rows, "small")
    offer(rows, "large", 8)
    rows.replica(machine(rows, owner, "serves"), "its own")
    provider_rows.assign(rows, machine(rows, owner, "asked"), small)
    rows.replica(machine(rows, owner, "failed"), "its own", state="failed")

    assert choose() == {"asked": "small", "failed": "large"}


def test_a_second_round_changes_nothing(rows: Rows, owner: Person, choose: Choose) -> None:
    offer(rows, "small")
    machine(rows, owner)

    assert choose() == choose() == {"atelier": "small"}


def test_what_leaves_the_catalogue_is_taken_back_and_replaced(
    rows: Rows, owner: Person, choose: Choose, sessions: sessionmaker[Session]
) -> None:
    large, small = offer(rows, "large", 8), offer(rows, "small")
    machine(rows, owner)
    provider_rows.assign(rows, machine(rows, owner, "by hand"), large)
    assert choose()["atelier"] == "large"

    with sessions.begin() as session:
        session.get_one(CatalogModel, large.id).is_active = False

    assert choose() == {"atelier": small.name, "by hand": "large"}


def test_the_duty_is_off_unless_it_is_turned_on(
    rows: Rows, owner: Person, sessions: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from worker import tasks
    from worker.schedule import DUTIES

    offer(rows, "small")
    machine(rows, owner)

    def do(action: Callable[[Session], Any]) -> Any:
        with sessions.begin() as session:
            return action(session)

    for auto_models, expected in ((False, 0), (True, 1)):
        ours = SimpleNamespace(
            settings=SimpleNamespace(auto_models=auto_models, offline_after_seconds=90),
            ledger=SimpleNamespace(do=do),
        )
        monkeypatch.setattr(tasks, "context", lambda ours=ours: ours)
        tasks.choose_models()
        with sessions() as session:
            assert len(session.scalars(sa.select(NodeAssignment)).all()) == expected
    assert "worker.tasks.choose_models" in {duty.task for duty in DUTIES}
