"""fabric: days, beats, downloads and points of a user's nodes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.models import Node
from app.core.services import monitoring, node_reports
from app.core.services import nodes as node_service
from tests import fleet
from tests.blueprints.fabric.conftest import ALPHA, BETA, DAY, Get, assert_golden, data_of
from tests.fixtures.accounts import Person
from tests.fleet import RTX_3090

Sessions = sessionmaker[Session]
Nodes = dict[str, fleet.TestNode]


class TestMonitor:
    def test_looks_as_the_contract_says(self, nodes: Nodes, get: Get) -> None:
        assert_golden("client_monitor", get("/api/user/client_monitor"))

    def test_of_one_node_and_one_day(self, nodes: Nodes, get: Get) -> None:
        rows = get(
            "/api/user/client_monitor", client_id=ALPHA,
            start_date="2026-03-02", end_date="2026-03-02",
        )  # fmt: skip
        assert [(row["date"], row["total_heartbeats"]) for row in rows] == [("2026-03-02", 45)]

    def test_says_when_older_rows_are_left_out(
        self, nodes: Nodes, client: FlaskClient, owner: Person, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(monitoring, "MAX_ROWS", 2)
        answer = client.get(
            f"/api/user/client_monitor?user_id={owner.id}", headers=owner.headers()
        )
        assert answer.headers["X-Truncated"] == "true"
        assert [row["date"] for row in data_of(answer)] == ["2026-03-02", "2026-03-01"]


class TestHealthRecords:
    def test_look_as_the_contract_says(self, nodes: Nodes, get: Get) -> None:
        rows = get(
            "/api/user/client_health", client_id=ALPHA,
            start_date="2026-03-02T01:00:00Z", end_date="2026-03-02T01:04:00Z",
        )  # fmt: skip
        assert_golden("client_health", rows)

    @pytest.mark.parametrize(
        ("start", "end", "count"),
        [
            ("2026-03-01", "2026-03-01", 720), ("2026-03-01", "2026-03-02", 765),
            ("2026-03-02", None, 45), (None, "2026-02-28", 0), (None, None, 765),
            ("2026-03-02T00:00:00Z", "2026-03-02T00:02:00Z", 1),
            ("2026-03-02T00:00:00+00:00", "2026-03-02T00:02:01+00:00", 2),
            ("2026-03-02T01:00:00+01:00", None, 45), ("2026-03-02", "2026-03-01", 0),
        ],
    )  # fmt: skip
    def test_of_a_span(
        self, nodes: Nodes, get: Get, start: str | None, end: str | None, count: int
    ) -> None:
        rows = get("/api/user/client_health", client_id=ALPHA, start_date=start, end_date=end)
        assert len(rows) == count
        stamps = [row["timestamp"] for row in rows]
        assert stamps == sorted(stamps, reverse=True)

    def test_says_when_older_rows_are_left_out(
        self, nodes: Nodes, client: FlaskClient, owner: Person, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(monitoring, "MAX_ROWS", 100)
        answer = client.get(
            f"/api/user/client_health?user_id={owner.id}", headers=owner.headers()
        )
        rows = data_of(answer)
        assert answer.headers["X-Truncated"] == "true"
        assert len(rows) == 100
        assert rows[0]["timestamp"] == "2026-03-02T01:28:00.000000Z"

    @pytest.mark.parametrize("path", ["client_health", "client_monitor"])
    @pytest.mark.parametrize(
        "value",
        ["yesterday", "2026-13-01", "2026-02-30", "01.03.2026", "2026-03-01 00:00",
         "9999-12-31", "0001-01-01T00:00:00+23:00", "2026-W10-1", "20260301"],
    )  # fmt: skip
    def test_bad_dates_are_refused(self, nodes: Nodes, get: Get, path: str, value: str) -> None:
        get(f"/api/user/{path}", expect=400, start_date=value)
        get(f"/api/user/{path}", expect=400, end_date=value)


class TestDownloadProgress:
    PATH = "/api/user/model_download_progress"

    def test_looks_as_the_contract_says(
        self, nodes: Nodes, get: Get, redis_client: Redis
    ) -> None:
        progress = node_reports.Progress("phi", 50, 200, 25.0, 1000, "Downloading", None)
        node_reports.keep_downloads(
            redis_client, nodes["alpha"].id, [progress], now=fleet.at("2026-03-03 00:00:00")
        )
        assert_golden("model_download_progress", get(self.PATH, client_id=ALPHA))

    def test_is_empty_when_nothing_is_known(self, nodes: Nodes, get: Get) -> None:
        for client_id in (BETA, "f" * 32):
            data = get(self.PATH, client_id=client_id)
            assert data.pop("client_id") == client_id
            assert set(data.values()) == {None}

    def test_of_somebody_elses_node_is_not_found(
        self, nodes: Nodes, get: Get, other: Person, admin: Person
    ) -> None:
        get(self.PATH, expect=404, person=other, client_id=ALPHA)
        get(self.PATH, person=admin, client_id=ALPHA)
        get(self.PATH, expect=400, client_id="nonsense")


class TestPoints:
    PATH = "/api/user/points"

    def test_look_as_the_contract_says(self, nodes: Nodes, get: Get) -> None:
        assert_golden("points", get(self.PATH))

    @pytest.mark.parametrize(
        ("query", "dates"),
        [
            ({"client_id": ALPHA}, ["2026-03-02", "2026-03-01"]),
            ({"client_id": f'"{BETA}"'}, ["2026-03-01"]),
            ({"client_name": "ALPHA"}, ["2026-03-02", "2026-03-01"]),
            ({"client_name": " "}, ["2026-03-02", "2026-03-01", "2026-03-01"]),
            ({"client_name": "%"}, []),
            ({"device_id": 9860}, ["2026-03-02", "2026-03-01"]),
            ({"device_id": 8708, "client_name": "bet"}, ["2026-03-01"]),
            ({"device_id": 8708, "client_id": ALPHA}, []),
            ({"start_date": "2026-03-02"}, ["2026-03-02"]),
            ({"end_date": "2026-03-01"}, ["2026-03-01", "2026-03-01"]),
            ({"start_date": "2026-03-01", "end_date": "2026-03-01"},
             ["2026-03-01", "2026-03-01"]),
        ],
    )  # fmt: skip
    def test_filters_are_anded(
        self, nodes: Nodes, get: Get, query: dict[str, Any], dates: list[str]
    ) -> None:
        page = get(self.PATH, **query)
        assert [row["date"] for row in page["points"]] == dates
        assert page["total_count"] == len(dates)
        assert page["total_points"] == pytest.approx(
            sum(row["points"] for row in page["points"]), abs=1e-9
        )

    def test_totals_are_those_of_all_pages_also_past_the_end(
        self, nodes: Nodes, get: Get
    ) -> None:
        pages = [get(self.PATH, page=number, page_size=2) for number in (1, 2, 3)]
        assert [len(page["points"]) for page in pages] == [2, 1, 0]
        assert len({(page["total_points"], page["total_count"]) for page in pages}) == 1
        assert [(page["page"], page["page_size"]) for page in pages] == [(1, 2), (2, 2), (3, 2)]

    def test_pages_of_many_days_and_devices_join_without_a_seam(
        self, nodes: Nodes, get: Get, sessions: Sessions
    ) -> None:
        for number in range(7):
            day = DAY + timedelta(days=10 + number)
            for node in nodes.values():
                fleet.apply(sessions, fleet.beats(node, day, 30 + number))
        whole = get(self.PATH, page_size=100)["points"]
        joined = [
            row for number in range(1, 8) for row in get(
                self.PATH, page=number, page_size=3)["points"]
        ]  # fmt: skip
        assert joined == whole
        assert whole == sorted(
            sorted(whole, key=lambda row: row["client_id"]),
            key=lambda row: row["date"], reverse=True,
        )  # fmt: skip

    def test_points_of_a_removed_node_stay(
        self, nodes: Nodes, get: Get, sessions: Sessions
    ) -> None:
        before = get(self.PATH)["total_points"]
        with sessions.begin() as session:
            node = session.get_one(Node, nodes["alpha"].id)
            node_service.remove_node(session, node, now=utc_now())
        assert get(self.PATH)["total_points"] == before

    @pytest.mark.parametrize(
        "query",
        [{"page": 0}, {"page": 101}, {"page_size": 0}, {"page_size": 101}, {"page": "x"},
         {"client_id": "12"}, {"device_id": "gpu"}, {"device_id": -1}, {"start_date": "today"},
         {"start_date": "2026-02-30"}, {"end_date": "2026-03-01T00:00:00Z"}],
    )  # fmt: skip
    def test_bad_values_are_refused(
        self, nodes: Nodes, get: Get, query: dict[str, Any]
    ) -> None:
        assert get(self.PATH, expect=400, **query) is None

    def test_rows_of_a_slower_card_add_up_exactly(
        self, get: Get, sessions: Sessions, owner: Person
    ) -> None:
        node = fleet.make_node(sessions, owner.id, devices=[RTX_3090])
        for number in range(30):
            fleet.apply(sessions, fleet.beats(node, DAY + timedelta(days=number), 30))
        page = get(self.PATH, page_size=100)
        assert {row["points"] for row in page["points"]} == {0.431}
        assert page["total_points"] == 12.93
