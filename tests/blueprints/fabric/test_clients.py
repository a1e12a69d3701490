"""fabric: a user's nodes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.models import Node
from app.core.services import placement
from tests import fleet
from tests.blueprints.fabric.conftest import ALPHA, BETA, DAY, Get, assert_golden, data_of
from tests.fixtures.accounts import Person

Sessions = sessionmaker[Session]
Nodes = dict[str, fleet.TestNode]


def names(listed: dict[str, Any]) -> list[str]:
    return [device["client_name"] for device in listed["devices"]]


class TestClientList:
    def test_looks_as_the_contract_says(self, nodes: Nodes, get: Get) -> None:
        listed = get("/api/user/client_list")
        for device in listed["devices"]:
            for model in device["loaded_models"]:
                assert utc_now().timestamp() - model.pop("created") < 60
        assert_golden("client_list", listed)

    def test_has_a_second_name(self, nodes: Nodes, get: Get) -> None:
        assert get("/api/user/client_status_list") == get("/api/user/client_list")

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ({"name": "ALPHA"}, ["Alpha_1"]), ({"name": "a_1"}, ["Alpha_1"]),
            ({"name": "_"}, ["Alpha_1"]), ({"name": "%"}, []), ({"name": ""}, ["Alpha_1", "beta"]),
            ({"client_id": "0x" + BETA.upper()}, ["beta"]), ({"client_id": "f" * 32}, []),
            ({"status": "online"}, ["Alpha_1"]), ({"status": "offline"}, ["beta"]),
            ({"status": "maintenance"}, []), ({"status": "online", "name": "beta"}, []),
            ({"valid_status": "invalid"}, []), ({"valid_status": "valid"}, ["Alpha_1", "beta"]),
        ],
    )  # fmt: skip
    def test_filters_are_anded(
        self, nodes: Nodes, get: Get, query: dict[str, str], found: list[str]
    ) -> None:
        listed = get("/api/user/client_list", **query)
        assert (names(listed), listed["total"]) == (found, len(found))

    def test_pages_and_counts_all(self, nodes: Nodes, get: Get) -> None:
        listed = get("/api/user/client_list", page=2, page_size=1)
        assert (names(listed), listed["total"]) == (["beta"], 2)

    @pytest.mark.parametrize(
        "query",
        [{"client_id": "xyz"}, {"status": "asleep"}, {"valid_status": "maybe"}, {"page": 0},
         {"page_size": 0}, {"user_id": ""}, {"user_id": "1" * 33}],
    )  # fmt: skip
    def test_bad_values_are_refused(self, nodes: Nodes, get: Get, query: Any) -> None:
        assert get("/api/user/client_list", expect=400, **query) is None

    def test_an_unknown_user_has_none(self, nodes: Nodes, get: Get, admin: Person) -> None:
        for user_id in ("999999", "nobody", "99999999999999999999"):
            listed = get("/api/user/client_list", person=admin, user_id=user_id)
            assert listed == {"total": 0, "devices": []}


class TestStatus:
    def test_one_missed_beat_does_not_make_a_node_offline(
        self, nodes: Nodes, get: Get, sessions: Sessions
    ) -> None:
        for seconds, status in ((89, "online"), (91, "offline")):
            with sessions.begin() as session:
                node = session.get_one(Node, nodes["alpha"].id)
                node.last_beat_at = utc_now() - timedelta(seconds=seconds)
            (device,) = get("/api/user/client_list", client_id=ALPHA)["devices"]
            assert device["client_status"] == status

    def test_maintenance_outlives_beats_and_takes_no_runs(
        self, nodes: Nodes, get: Get, client: FlaskClient, owner: Person, sessions: Sessions
    ) -> None:
        body = {"user_id": owner.id, "client_id": ALPHA, "client_status": "maintenance"}
        data_of(client.post("/api/user/edit_client_info", json=body, headers=owner.headers()))
        fleet.apply(sessions, [fleet.beat(nodes["alpha"], utc_now())])
        (device,) = get("/api/user/client_list", client_id=ALPHA)["devices"]
        assert device["client_status"] == "maintenance"
        with sessions() as session:
            assert not placement.list_candidates(
                session, now=utc_now(), offline_after_seconds=90
            )

    def test_a_silent_node_is_offline_whatever_was_set(
        self, nodes: Nodes, get: Get, client: FlaskClient, owner: Person
    ) -> None:
        for wanted in ("online", "maintenance", "active"):
            body = {"user_id": str(owner.id), "client_id": BETA, "client_status": wanted}
            data_of(
                client.post("/api/user/edit_client_info", json=body, headers=owner.headers())
            )
            (device,) = get("/api/user/client_list", client_id=BETA)["devices"]
            assert device["client_status"] == "offline"


class TestInsertClient:
    def insert(self, client: FlaskClient, person: Person, **changes: Any) -> Any:
        body = {
            "user_id": str(person.id),
            "client_id": "3c04a52d9e424dcc83c06573227a7bf6",
            "client_status": "online",
            "os_type": "linux",
            "name": "node-1",
            **changes,
        }
        return client.post("/api/user/insert_client", json=body, headers=person.headers())

    def test_creates_then_changes(self, client: FlaskClient, owner: Person, get: Get) -> None:
        assert data_of(self.insert(client, owner)) == []
        assert data_of(self.insert(client, owner, name="node-2", os_type=None)) == []
        listed = get("/api/user/client_list")
        assert names(listed) == ["node-2"]
        assert listed["devices"][0]["os_type"] == "linux"
        assert listed["devices"][0]["client_status"] == "offline"

    def test_somebody_elses_id_is_refused(
        self, client: FlaskClient, owner: Person, other: Person
    ) -> None:
        data_of(self.insert(client, owner))
        data_of(self.insert(client, other), 403)

    def test_nobody_inserts_for_somebody_else(
        self, client: FlaskClient, owner: Person, other: Person, admin: Person
    ) -> None:
        data_of(self.insert(client, other, user_id=str(owner.id)), 403)
        data_of(self.insert(client, admin, user_id=str(owner.id)))
        data_of(self.insert(client, admin, user_id="424242"), 404)

    @pytest.mark.parametrize(
        "change",
        [{"user_id": ""}, {"user_id": "1" * 33}, {"client_id": "12"}, {"client_id": None},
         {"client_status": "asleep"}, {"os_type": ""}, {"os_type": "x" * 65}, {"name": ""},
         {"name": "x" * 33}, {"name": None}, {"name": "   "}],
    )  # fmt: skip
    def test_bad_values_are_refused(
        self, client: FlaskClient, owner: Person, change: dict[str, Any]
    ) -> None:
        assert data_of(self.insert(client, owner, **change), 400) is None


class TestEditClientInfo:
    def edit(self, client: FlaskClient, person: Person, **changes: Any) -> Any:
        body = {"user_id": str(person.id), "client_id": ALPHA, **changes}
        return client.post("/api/user/edit_client_info", json=body, headers=person.headers())

    def test_changes_what_is_given(
        self, nodes: Nodes, client: FlaskClient, owner: Person, get: Get
    ) -> None:
        assert data_of(self.edit(client, owner, name="zeta", os_type="win")) is None
        (device,) = get("/api/user/client_list", client_id=ALPHA)["devices"]
        assert (device["client_name"], device["os_type"]) == ("zeta", "win")

    def test_what_is_valid_an_admin_says(
        self, nodes: Nodes, client: FlaskClient, owner: Person, admin: Person, get: Get
    ) -> None:
        data_of(self.edit(client, owner, valid_status="warning"), 403)
        data_of(self.edit(client, admin, user_id=owner.id, valid_status="warning"))
        assert names(get("/api/user/client_list")) == ["beta"]
        assert names(get("/api/user/client_list", valid_status="warning")) == ["Alpha_1"]
        assert get("/api/user/client_stat")["systems_warnings_number"] == 1

    def test_unknown_and_foreign_nodes_are_not_found(
        self, nodes: Nodes, client: FlaskClient, owner: Person, other: Person, admin: Person
    ) -> None:
        data_of(self.edit(client, owner, client_id="f" * 32), 404)
        data_of(self.edit(client, other), 404)
        data_of(self.edit(client, admin), 404)  # the node is not the admin's own
        data_of(self.edit(client, other, user_id=owner.id), 403)

    @pytest.mark.parametrize(
        "change", [{"client_status": "asleep"}, {"valid_status": "maybe"}, {"client_id": "1"}]
    )
    def test_bad_values_are_refused(
        self, nodes: Nodes, client: FlaskClient, owner: Person, change: dict[str, Any]
    ) -> None:
        data_of(self.edit(client, owner, **change), 400)


class TestDetailAndStat:
    def test_detail_looks_as_the_contract_says(self, nodes: Nodes, get: Get) -> None:
        assert_golden("client_device_detail", get(
            "/api/user/client_device_detail", client_id=ALPHA))  # fmt: skip

    def test_detail_of_unknown_and_foreign_nodes(
        self, nodes: Nodes, get: Get, other: Person
    ) -> None:
        path = "/api/user/client_device_detail"
        get(path, expect=404, client_id="f" * 32)
        get(path, expect=404, person=other, user_id=other.id, client_id=ALPHA)
        get(path, expect=400, client_id="f")
        get(path, expect=400)

    def test_stat_looks_as_the_contract_says(self, nodes: Nodes, get: Get) -> None:
        assert_golden("client_stat", get("/api/user/client_stat"))

    def test_uptime_rate_is_yesterdays(
        self, nodes: Nodes, get: Get, sessions: Sessions
    ) -> None:
        midnight = utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
        yesterday = midnight - timedelta(days=1)
        fleet.apply(sessions, fleet.beats(nodes["alpha"], yesterday, 720))
        fleet.apply(sessions, fleet.beats(nodes["beta"], yesterday, 180))
        assert get("/api/user/client_stat")["uptime_rate"] == 62.5

    def test_an_unknown_user_has_zeros(self, get: Get, admin: Person) -> None:
        stat = get("/api/user/client_stat", person=admin, user_id="77777")
        assert set(stat.values()) == {0}


class TestHealth:
    def test_is_the_mean_over_days_with_beats(self, nodes: Nodes, get: Get) -> None:
        by_name = {
            d["client_name"]: d["health"] for d in get("/api/user/client_list")["devices"]
        }
        assert by_name == {"Alpha_1": round((1 + 45 / 720) / 2 * 100, 2), "beta": 50.0}

    def test_expects_of_today_what_could_be_sent_so_far(
        self, get: Get, sessions: Sessions, owner: Person
    ) -> None:
        midnight = utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
        node = fleet.make_node(sessions, owner.id, joined=DAY)
        so_far = int((utc_now() - midnight).total_seconds() // 120)
        fleet.apply(sessions, fleet.beats(node, midnight, max(1, so_far)))
        (device,) = get("/api/user/client_list")["devices"]
        assert device["health"] > 90

    def test_expects_nothing_of_the_time_before_a_node_joined(
        self, get: Get, sessions: Sessions, owner: Person
    ) -> None:
        joined = DAY + timedelta(hours=12)
        node = fleet.make_node(sessions, owner.id, joined=joined)
        fleet.apply(sessions, fleet.beats(node, joined, 360))
        (device,) = get("/api/user/client_list")["devices"]
        assert device["health"] == 100.0
