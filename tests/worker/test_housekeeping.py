"""Slow rounds over the fleet, and the commands that do the same by hand."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session, sessionmaker

from app.config import Settings
from app.core.clock import utc_now
from app.core.models import Account, DevicePointsDaily, Heartbeat, Node, PointGrant
from tests import fleet
from tests.fixtures.accounts import Person
from worker import housekeeping, tasks

Sessions = sessionmaker[Session]


@pytest.fixture
def _in_worker(sessions: Sessions, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    context = SimpleNamespace(sessions=sessions, settings=settings)
    monkeypatch.setattr(tasks, "context", lambda: context)


@pytest.mark.usefixtures("_in_worker")
class TestRounds:
    def test_days_that_are_over_are_granted(self, sessions: Sessions, owner: Person) -> None:
        node = fleet.make_node(sessions, owner.id)
        yesterday = utc_now().replace(hour=1) - timedelta(days=1)
        fleet.apply(sessions, fleet.beats(node, yesterday, 30))
        housekeeping.settle_points()
        housekeeping.settle_points()
        with sessions() as session:
            assert session.scalars(sa.select(PointGrant.amount_e4)).all() == [10_000]

    def test_old_beats_go_and_the_days_stay(self, sessions: Sessions, owner: Person) -> None:
        node = fleet.make_node(sessions, owner.id)
        for age in (40, 2):
            start = utc_now() - timedelta(days=age)
            fleet.apply(sessions, fleet.beats(node, start, 5))
        housekeeping.expire_beats()
        with sessions() as session:
            assert session.scalar(sa.select(sa.func.count()).select_from(Heartbeat)) == 5
            days = sa.select(sa.func.sum(DevicePointsDaily.heartbeats))
            assert session.scalar(days) == 10

    def test_only_what_is_silent_and_serves_nothing_is_dropped(
        self, sessions: Sessions, owner: Person
    ) -> None:
        long_ago = utc_now() - timedelta(days=31)
        silent = fleet.make_node(sessions, owner.id, joined=long_ago)
        serving = fleet.make_node(sessions, owner.id, joined=long_ago)
        fleet.serve(sessions, serving, "llama", at=long_ago)
        beating = fleet.make_node(sessions, owner.id, joined=long_ago)
        fleet.apply(sessions, [fleet.beat(beating, utc_now())])
        housekeeping.drop_silent_nodes()
        with sessions() as session:
            removed = session.scalars(sa.select(Node.id).where(Node.removed_at.is_not(None)))
            assert removed.all() == [silent.id]


class TestCommands:
    def test_rebuild_points_agrees_or_fails_or_mends(
        self, app: Flask, sessions: Sessions, owner: Person
    ) -> None:
        node = fleet.make_node(sessions, owner.id)
        start = utc_now().replace(hour=1) - timedelta(days=1)
        fleet.apply(sessions, fleet.beats(node, start, 60))
        run = app.test_cli_runner().invoke
        agreed = run(args=["weft", "rebuild-points"])
        assert (agreed.exit_code, agreed.output) == (0, "All points agree.\n")
        with sessions.begin() as session:
            session.execute(sa.update(DevicePointsDaily).values(points_e4=5))
        assert run(args=["weft", "rebuild-points"]).exit_code == 1
        assert run(args=["weft", "rebuild-points", "--write"]).exit_code == 0
        assert run(args=["weft", "rebuild-points"]).exit_code == 0

    def test_approving_a_provider_grants_what_was_held(
        self, app: Flask, sessions: Sessions, owner: Person
    ) -> None:
        node = fleet.make_node(sessions, owner.id)
        start = utc_now().replace(hour=1) - timedelta(days=1)
        fleet.apply(sessions, fleet.beats(node, start, 60))
        with sessions.begin() as session:
            session.get_one(Account, owner.id).is_gpu_provider_approved = False
        said = app.test_cli_runner().invoke(args=["weft", "approve-provider", "owner"])
        assert said.output == "approved owner, granted 2.0000 points\n"

    def test_a_device_type_can_be_added(
        self, app: Flask, sessions: Sessions, owner: Person
    ) -> None:
        arguments = ["weft", "device-type", "0x1234", "77", "Acme", "Acme Fantasy 9000", "41.3",
                     "--source", "its data sheet"]  # fmt: skip
        assert app.test_cli_runner().invoke(args=arguments).exit_code == 0
        node = fleet.make_node(sessions, owner.id, devices=[fleet.NOBODYS_GPU])
        fleet.apply(sessions, fleet.beats(node, utc_now() - timedelta(hours=2), 1))
        with sessions() as session:
            assert session.scalar(sa.select(DevicePointsDaily.multiplier_e4)) == 5000
