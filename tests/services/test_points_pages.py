"""Pages of points are those of one long list, however sparse the days are."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.core.models import DevicePointsDaily
from app.core.services.points import DevicePoints, PointsFilter, list_points
from tests import fleet
from tests.fixtures.accounts import Person

TODAY = datetime(2026, 3, 1, tzinfo=UTC).date()
DAYS = 200


@pytest.fixture
def everything(sessions: sessionmaker[Session], owner: Person) -> list[DevicePoints]:
    """Every row of three nodes in order: one on all days, one lately, one long ago."""
    chance = random.Random(11)
    spans = {"all % days": range(DAYS), "lately": range(9), "LONG ago": range(150, DAYS)}
    rows, earned = [], []
    for name, ages in spans.items():
        node = fleet.make_node(sessions, owner.id, name=name)
        for age in ages:
            for index in range(chance.choice((0, 1, 1, 2))):
                day = TODAY - timedelta(days=age)
                points, device = chance.randrange(240_000), chance.choice((0, 9860))
                earned.append(
                    DevicePointsDaily(
                        node_id=node.id, day=day, device_index=index, device_key="k",
                        device_name="GPU", device_id=device, heartbeats=700,
                        multiplier_e4=10_000, points_e4=points,
                    )
                )  # fmt: skip
                rows.append(
                    DevicePoints(node.client_id, name, day, 700, index, "GPU", device, points)
                )
    with sessions.begin() as session:
        session.add_all(earned)
    return sorted(rows, key=lambda row: (TODAY - row.day, row.client_id, row.device_index))


@pytest.mark.parametrize("start", [None, TODAY - timedelta(days=20), date(2025, 8, 20)])
@pytest.mark.parametrize("end", [None, TODAY, TODAY - timedelta(days=8)])
def test_every_page_is_a_piece_of_the_whole(
    session: Session,
    owner: Person,
    everything: list[DevicePoints],
    start: date | None,
    end: date | None,
) -> None:
    for device_id, name in ((None, None), (9860, None), (None, "%"), (0, "long")):
        matching = [
            row
            for row in everything
            if (start or date.min) <= row.day <= (end or date.max)
            and (device_id is None or row.device_id == device_id)
            and (name or "") in row.client_name.lower()
        ]
        wanted = PointsFilter(
            owner.id, client_name=name, device_id=device_id, start=start, end=end
        )
        for page in (1, 2, 5, len(matching) // 7 + 1, 100):
            found = list_points(session, wanted, page=page, page_size=7)
            assert list(found.rows) == matching[(page - 1) * 7 : page * 7]
            assert found.count == len(matching)
            assert found.total_e4 == sum(row.points_e4 for row in matching)
