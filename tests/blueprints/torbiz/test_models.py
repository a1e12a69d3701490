"""torbiz: machines that serve models, and the list of models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.domain.beats import decode_received
from app.core.models import Account, Device, HardwareRecord, Node, Replica
from app.core.services.heartbeats import FIELD, STREAM
from tests import fleet
from tests.fakes.tgi import MODEL, Tgi
from tests.fakes.tgi import serve as serve_tgi
from tests.fixtures.accounts import Person

Sessions = sessionmaker[Session]
MACHINE = {
    "model_name": "mistral-7b", "gpu_info": "NVIDIA RTX 4090", "cpu_name": "AMD Ryzen 9 5950X",
    "cpu_core": "16", "cpu_frequency": "3.4GHz", "total_memory": "64GB", "total_swap": "32GB",
    "ram": "64GB", "os_name": "Windows", "os_version": "11",
    "endpoint_url": "http://127.0.0.1:1/v1",
}  # fmt: skip


def register(client: FlaskClient, person: Person, **changes: Any) -> Any:
    body = {**MACHINE, "user": person.id, **changes}
    return client.post("/llm_models/register/", json=body, headers=person.headers("basic"))


class TestRegister:
    def test_makes_a_node_a_gpu_row_and_a_provider(
        self, client: FlaskClient, owner: Person, sessions: Sessions
    ) -> None:
        answer = register(client, owner)
        body = answer.get_json()
        assert answer.status_code == 201
        assert set(body) == {"node_token", "node_id", "client_id", "gpu_id", "model_name"}
        with sessions() as session:
            replica = session.query(Replica).one()
            assert (replica.node_id, replica.model_name) == (body["node_id"], "mistral-7b")
            assert replica.endpoint_url == "http://127.0.0.1:1"
            assert session.query(Device).one().tflops == 82.6
            assert session.get_one(HardwareRecord, body["gpu_id"]).cpu_core == "16"
            assert session.get_one(Account, owner.id).role == "gpu_provider"

    def test_further_models_come_with_the_token(
        self, client: FlaskClient, owner: Person, sessions: Sessions
    ) -> None:
        first = register(client, owner).get_json()
        token = first["node_token"]
        second = register(client, owner, model_name="phi-3", node_token=token).get_json()
        assert second == {**first, "model_name": "phi-3"}
        with sessions() as session:
            names = {name for (name,) in session.query(Replica.model_name)}
            assert names == {"mistral-7b", "phi-3"}
            assert session.query(HardwareRecord).count() == 1

    def test_the_same_endpoint_is_the_same_node_with_a_new_token(
        self, client: FlaskClient, owner: Person, sessions: Sessions
    ) -> None:
        first, second = register(client, owner).get_json(), register(client, owner).get_json()
        assert first["node_id"] == second["node_id"]
        assert first["gpu_id"] == second["gpu_id"]
        assert first["node_token"] != second["node_token"]

    @pytest.mark.parametrize("name", ["17", "", 17, None, "  ", "12-34"])
    def test_a_name_without_a_letter_creates_nothing(
        self, client: FlaskClient, owner: Person, sessions: Sessions, name: Any
    ) -> None:
        answer = register(client, owner, model_name=name)
        assert answer.status_code == 400
        assert list(answer.get_json()) == ["model_name"]
        with sessions() as session:
            assert session.query(Node).count() == 0

    def test_an_address_that_the_hub_may_not_reach_is_refused(
        self, client: FlaskClient, owner: Person, sessions: Sessions
    ) -> None:
        answer = register(client, owner, endpoint_url="http://169.254.169.254/latest")
        assert answer.status_code == 400
        assert list(answer.get_json()) == ["endpoint_url"]
        with sessions() as session:
            assert session.query(Node).count() == 0

    def test_nobody_registers_for_somebody_else(
        self, client: FlaskClient, owner: Person, other: Person, admin: Person
    ) -> None:
        assert register(client, owner, user=other.id).status_code == 403
        assert register(client, admin, user=str(other.id)).status_code == 201

    def test_somebody_elses_token_is_unknown(
        self, client: FlaskClient, owner: Person, other: Person
    ) -> None:
        token = register(client, owner).get_json()["node_token"]
        answer = register(client, other, node_token=token)
        assert (answer.status_code, set(answer.get_json())) == (404, {"detail"})

    def test_needs_an_account(self, client: FlaskClient) -> None:
        assert client.post("/llm_models/register/", json=MACHINE).status_code == 401

    def test_an_engine_says_what_it_calls_the_model(
        self, client: FlaskClient, owner: Person, sessions: Sessions
    ) -> None:
        with serve_tgi(Tgi()) as engine:
            register(client, owner, endpoint_url=engine.url)
        with sessions() as session:
            replica = session.query(Replica).one()
        assert (replica.model_name, replica.engine) == ("mistral-7b", "tgi")
        assert replica.served_name == MODEL


class TestHeartbeat:
    def test_is_a_beat_like_any_other(
        self, client: FlaskClient, owner: Person, redis_client: Redis
    ) -> None:
        node = register(client, owner).get_json()
        body = {
            "node_token": node["node_token"], "model_name": "mistral-7b", "cpu_usage": 4.5,
            "devices": [{"index": 0, "usage": 50}],
        }  # fmt: skip
        answer = client.post("/llm_models/heartbeat/", json=body, headers=owner.headers())
        assert answer.status_code == 201
        ((_, entry),) = redis_client.xrange(STREAM)
        received = decode_received(entry[FIELD])
        assert (received.node_id, received.beat.cpu_usage) == (node["node_id"], 4.5)

    @pytest.mark.parametrize(
        ("body", "status"),
        [({}, 400), ({"node_token": "x"}, 404), ({"node_token": 5}, 400),
         ({"node_token": "x", "cpu_usage": "hot"}, 400)],
    )  # fmt: skip
    def test_refuses(
        self, client: FlaskClient, owner: Person, body: dict[str, Any], status: int
    ) -> None:
        answer = client.post("/llm_models/heartbeat/", json=body, headers=owner.headers())
        assert answer.status_code == status


class TestDeregister:
    def test_takes_the_node_out_and_tells_the_workers(
        self, client: FlaskClient, owner: Person, sessions: Sessions, redis_client: Redis
    ) -> None:
        node = register(client, owner).get_json()
        body = {"node_token": node["node_token"]}
        with redis_client.pubsub() as heard:
            heard.subscribe("weft:control")
            heard.get_message(timeout=5)
            answer = client.delete(
                "/llm_models/deregister/", json=body, headers=owner.headers()
            )
            message = heard.get_message(timeout=5)
        assert (answer.status_code, answer.data) == (204, b"")
        assert message is not None
        assert b"node_gone" in message["data"]
        for method, path in (
            ("DELETE", "/llm_models/deregister/"), ("POST", "/llm_models/heartbeat/"),
        ):  # fmt: skip
            again = client.open(path, method=method, json=body, headers=owner.headers())
            assert again.status_code == 404
        names = client.get("/llm_models/all-models/", headers=owner.headers()).get_json()
        assert names == []

    def test_refuses_what_is_missing_unknown_or_foreign(
        self, client: FlaskClient, owner: Person, other: Person
    ) -> None:
        token = register(client, owner).get_json()["node_token"]
        for body, status in (
            ({}, 400), ({"node_token": "x"}, 404), ({"node_token": token}, 404),
        ):  # fmt: skip
            answer = client.delete(
                "/llm_models/deregister/", json=body, headers=other.headers()
            )
            assert answer.status_code == status


class TestAllModels:
    def test_names_what_is_served_now(
        self, client: FlaskClient, owner: Person, sessions: Sessions
    ) -> None:
        node = fleet.make_node(sessions, owner.id)
        fleet.serve(sessions, node, "phi", "llama")
        answer = client.get("/llm_models/all-models/", headers=owner.headers())
        assert answer.get_json() == ["llama", "phi"]

    def test_gives_objects_of_all_that_is_known(
        self, client: FlaskClient, owner: Person, sessions: Sessions,
        make_app: Callable[..., Flask],
    ) -> None:  # fmt: skip
        node = fleet.make_node(sessions, owner.id)
        fleet.serve(sessions, node, "llama", "phi", at=utc_now())
        fleet.serve(sessions, node, "llama")
        asked = client.get("/llm_models/all-models/?format=objects", headers=owner.headers())
        by_setting = make_app(all_models_format="objects").test_client()
        preset = by_setting.get("/llm_models/all-models/", headers=owner.headers())
        assert asked.get_json() == preset.get_json()
        assert [(one["name"], one["is_available"]) for one in asked.get_json()] == [
            ("llama", True), ("phi", False),
        ]  # fmt: skip
        assert set(asked.get_json()[0]) == {
            "model_id", "name", "description", "min_gpu_memory", "is_available",
        }  # fmt: skip

    def test_refuses_another_format(self, client: FlaskClient, owner: Person) -> None:
        answer = client.get("/llm_models/all-models/?format=xml", headers=owner.headers())
        assert answer.status_code == 400
