"""The agent API: joining, what the machine has and serves, leaving."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.models import Account, Device, EnrolmentToken, KnownModel, Node, Replica
from app.core.services import desired, node_reports, placement
from tests import fleet
from tests.fixtures.accounts import CARRIERS, Person

Sessions = sessionmaker[Session]
INVENTORY = {
    "cpu_name": "AMD EPYC", "cpu_physical_cores": 16, "memory_bytes": 2**36,
    "devices": [
        {"index": 0, "name": "NVIDIA GeForce RTX 4090", "vendor_id": 4318, "device_id": 9860,
         "memory_bytes": 24 * 2**30},
        {"index": 1, "name": "Mystery", "error": "fell off the bus"},
    ],
}  # fmt: skip
MACHINE = {"name": "garage", "os_type": "linux", "agent_version": "1", "inventory": INVENTORY}
REPLICA = {
    "model_name": "llama", "served_name": "meta/llama", "engine": "vllm", "state": "ready",
    "endpoint_url": "http://127.0.0.1:9999", "concurrency": 8, "api_key": "engine-secret",
}  # fmt: skip


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    """The body of a refusal, which has the shape of RFC 9457."""
    body: dict[str, Any] = answer.get_json()
    assert answer.mimetype == "application/problem+json"
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code)
    assert set(body) == {"type", "title", "status", "detail", "code"}
    return body


class TestEnrol:
    def test_makes_a_node_with_its_devices_and_a_provider(
        self, client: FlaskClient, enrolment_token: str, sessions: Sessions, owner: Person
    ) -> None:
        answer = client.post("/agent/v1/enrol", json=MACHINE, headers=bearer(enrolment_token))
        body = answer.get_json()
        assert answer.status_code == 201
        assert set(body) == {
            "node_id", "client_id", "node_token", "heartbeat_seconds", "name", "relay",
        }  # fmt: skip
        assert body["heartbeat_seconds"] == 30
        with sessions() as session:
            devices = session.query(Device).order_by(Device.index).all()
            assert [(d.name, d.tflops) for d in devices] == [
                ("NVIDIA GeForce RTX 4090", 82.6), ("Mystery", None),
            ]  # fmt: skip
            assert session.get_one(Account, owner.id).role == "gpu_provider"
            assert session.get_one(Node, body["node_id"]).token_hash != body["node_token"]

    def test_the_same_machine_comes_back_as_the_same_node(
        self, client: FlaskClient, enrolment_token: str
    ) -> None:
        machine = {**MACHINE, "client_id": "AB" * 16}
        first, second = (
            client.post("/agent/v1/enrol", json=machine, headers=bearer(enrolment_token))
            for _ in range(2)
        )
        assert first.get_json()["node_id"] == second.get_json()["node_id"]
        assert second.get_json()["client_id"] == "ab" * 16
        old, new = first.get_json()["node_token"], second.get_json()["node_token"]
        problem(client.get("/agent/v1/desired", headers=bearer(old)), 401, "unauthenticated")
        assert client.get("/agent/v1/desired", headers=bearer(new)).status_code == 200

    def test_a_token_is_good_for_as_many_machines_as_it_says(
        self, client: FlaskClient, enrolment_token: str
    ) -> None:
        headers = bearer(enrolment_token)
        first = {**MACHINE, "client_id": "01" * 16}
        second = {**MACHINE, "client_id": "02" * 16}
        assert client.post("/agent/v1/enrol", json=first, headers=headers).status_code == 201
        problem(
            client.post("/agent/v1/enrol", json=second, headers=headers), 401, "unauthenticated"
        )

    def test_a_token_ends(
        self, client: FlaskClient, enrolment_token: str, sessions: Sessions
    ) -> None:
        with sessions.begin() as session:
            session.query(EnrolmentToken).one().expires_at = utc_now() - timedelta(seconds=1)
        answer = client.post("/agent/v1/enrol", json=MACHINE, headers=bearer(enrolment_token))
        problem(answer, 401, "unauthenticated")

    def test_somebody_elses_client_id_is_refused(
        self, client: FlaskClient, enrolment_token: str, sessions: Sessions, other: Person
    ) -> None:
        theirs = fleet.make_node(sessions, other.id)
        machine = {**MACHINE, "client_id": theirs.client_id}
        answer = client.post("/agent/v1/enrol", json=machine, headers=bearer(enrolment_token))
        problem(answer, 403, "forbidden")

    @pytest.mark.parametrize("carrier", CARRIERS)
    def test_no_account_credential_enrols(
        self, client: FlaskClient, owner: Person, carrier: str
    ) -> None:
        answer = client.post("/agent/v1/enrol", json=MACHINE, headers=owner.headers(carrier))
        problem(answer, 401, "unauthenticated")

    @pytest.mark.parametrize(
        "change",
        [
            {"name": "x" * 65},
            {"client_id": "zz"},
            {"inventory": {"devices": [{"index": -1}]}},
            {"inventory": {"devices": [{"index": 0}] * 65}},
            {"inventory": {"cpu_name": "\x00"}},
        ],
    )
    def test_bad_values_are_refused(
        self, client: FlaskClient, enrolment_token: str, change: dict[str, Any]
    ) -> None:
        answer = client.post(
            "/agent/v1/enrol", json={**MACHINE, **change}, headers=bearer(enrolment_token)
        )
        problem(answer, 400, "invalid")

    def test_a_name_is_made_fit_to_show(
        self, client: FlaskClient, enrolment_token: str
    ) -> None:
        machine = {**MACHINE, "name": " my\n\u202egarage \u0007"}
        answer = client.post("/agent/v1/enrol", json=machine, headers=bearer(enrolment_token))
        assert answer.get_json()["name"] == "my garage"


ROUTES = [
    ("PUT", "/agent/v1/inventory"), ("POST", "/agent/v1/heartbeat"),
    ("PUT", "/agent/v1/replicas"), ("GET", "/agent/v1/desired"),
    ("POST", "/agent/v1/downloads"), ("POST", "/agent/v1/logs"), ("POST", "/agent/v1/goodbye"),
]  # fmt: skip


class TestNodeToken:
    @pytest.mark.parametrize(("method", "path"), ROUTES)
    def test_nothing_else_opens_the_doors(
        self, client: FlaskClient, owner: Person, enrolment_token: str, method: str, path: str
    ) -> None:
        for headers in (
            {}, bearer(enrolment_token), bearer("x"), *map(owner.headers, CARRIERS),
        ):  # fmt: skip
            answer = client.open(path, method=method, headers=headers, json={})
            problem(answer, 401, "unauthenticated")

    def test_it_opens_no_other_door(
        self, client: FlaskClient, node: fleet.TestNode, owner: Person
    ) -> None:
        for path in (
            "/v1/models",
            f"/api/user/client_list?user_id={owner.id}",
            "/client/list/",
        ):
            assert client.get(path, headers=node.headers).status_code == 401

    def test_it_dies_with_the_account(
        self, client: FlaskClient, node: fleet.TestNode, sessions: Sessions, owner: Person
    ) -> None:
        with sessions.begin() as session:
            session.get_one(Account, owner.id).is_active = False
        problem(client.get("/agent/v1/desired", headers=node.headers), 401, "unauthenticated")


class TestReplicas:
    def put(self, client: FlaskClient, node: fleet.TestNode, *replicas: Any) -> Any:
        return client.put(
            "/agent/v1/replicas", json={"replicas": list(replicas)}, headers=node.headers
        )

    def test_a_reported_replica_serves_at_once_and_its_key_is_sealed(
        self, client: FlaskClient, node: fleet.TestNode, sessions: Sessions
    ) -> None:
        answer = self.put(client, node, REPLICA)
        assert answer.get_json() == {
            "replicas": [{"model_name": "llama", "accepted": True, "reason": None}]
        }
        with sessions() as session:
            candidates = placement.list_candidates(
                session, now=utc_now(), offline_after_seconds=90
            )
            assert [(c.model_name, c.served_name) for c in candidates] == [
                ("llama", "meta/llama")
            ]
            assert "engine-secret" not in str(candidates[0].sealed_api_key)
            assert session.query(KnownModel.name).all() == [("llama",)]

    def test_the_list_is_whole_each_time(
        self, client: FlaskClient, node: fleet.TestNode, sessions: Sessions
    ) -> None:
        self.put(client, node, REPLICA, {**REPLICA, "model_name": "phi"})
        self.put(client, node, {**REPLICA, "model_name": "phi"})
        with sessions() as session:
            assert session.query(Replica.model_name).all() == [("phi",)]

    @pytest.mark.parametrize(
        "url", ["http://10.1.2.3:80", "http://169.254.169.254/", "ftp://1.1.1.1", "nonsense"]
    )
    def test_an_address_that_the_hub_may_not_reach_is_not_taken(
        self, client: FlaskClient, node: fleet.TestNode, sessions: Sessions, url: str
    ) -> None:
        answer = self.put(client, node, {**REPLICA, "endpoint_url": url}, {
            **REPLICA, "model_name": "phi"})  # fmt: skip
        verdicts = answer.get_json()["replicas"]
        assert [one["accepted"] for one in verdicts] == [False, True]
        assert verdicts[0]["reason"]
        with sessions() as session:
            assert session.query(Replica.model_name).all() == [("phi",)]

    def test_unknown_engines_and_states_are_refused(
        self, client: FlaskClient, node: fleet.TestNode
    ) -> None:
        for change in ({"engine": "magic"}, {"state": "perhaps"}, {"concurrency": 0}):
            problem(self.put(client, node, {**REPLICA, **change}), 400, "invalid")


class TestDesired:
    def test_tells_of_the_drain_and_of_models(
        self, client: FlaskClient, node: fleet.TestNode, sessions: Sessions
    ) -> None:
        first = client.get("/agent/v1/desired", headers=node.headers).get_json()
        assert first == {
            "revision": 0, "name": "garage", "draining": False, "downloads": [], "models": [],
            "relay": True,
        }  # fmt: skip
        with sessions.begin() as session:
            row = session.get_one(Node, node.id)
            row.wanted_status = "maintenance"
            desired.assign_model(
                session, row, model_name="phi", engine="llamacpp", file="phi.gguf",
                now=utc_now(),
            )  # fmt: skip
        then = client.get("/agent/v1/desired", headers=node.headers).get_json()
        assert (then["revision"], then["draining"]) == (1, True)
        assert then["models"] == [
            {"model_name": "phi", "engine": "llamacpp", "file": "phi.gguf"}
        ]


class TestReports:
    def test_downloads_are_kept(
        self, client: FlaskClient, node: fleet.TestNode, redis_client: Redis
    ) -> None:
        done = {
            "id": 1,
            "model_name": "phi",
            "downloaded_bytes": 9,
            "total_bytes": 9,
            "percentage": 100,
            "speed_bps": 0,
            "status": "Completed",
            "error": None,
        }
        going = {**done, "model_name": "llama", "status": "Downloading", "percentage": 5.5}
        answer = client.post(
            "/agent/v1/downloads", json={"downloads": [done, going]}, headers=node.headers
        )
        assert answer.status_code == 204
        kept = node_reports.list_downloads(redis_client, node.id)
        assert [one.model_name for one in kept] == ["llama", "phi"]

    def test_logs_are_kept_and_bounded(
        self, client: FlaskClient, node: fleet.TestNode, redis_client: Redis
    ) -> None:
        line = {"at": "2026-03-01T00:00:00Z", "level": "info", "message": "hello"}
        for count, status in ((1, 204), (201, 400)):
            body = {"source": "agent", "lines": [line] * count}
            answer = client.post("/agent/v1/logs", json=body, headers=node.headers)
            assert answer.status_code == status
        kept = node_reports.list_logs(redis_client, node.id)
        assert [one["message"] for one in kept] == ["hello"]


class TestGoodbye:
    def test_the_node_is_offline_at_once_and_workers_hear_of_it(
        self, client: FlaskClient, node: fleet.TestNode, sessions: Sessions, redis_client: Redis
    ) -> None:
        fleet.serve(sessions, node, "llama")
        with redis_client.pubsub() as heard:
            heard.subscribe("weft:control")
            heard.get_message(timeout=5)
            assert client.post("/agent/v1/goodbye", headers=node.headers).status_code == 204
            message = heard.get_message(timeout=5)
        assert message is not None
        assert b"node_gone" in message["data"]
        with sessions() as session:
            assert not placement.list_candidates(
                session, now=utc_now(), offline_after_seconds=90
            )


def test_a_path_that_is_none_is_a_problem_too(
    client: FlaskClient, make_app: Callable[..., Flask]
) -> None:
    problem(client.get("/agent/v1/nothing"), 404, "not_found")
