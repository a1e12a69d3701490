"""Heartbeats: the fast path and the route behind it take and refuse the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.domain.beats import decode_received
from app.core.embedded_redis import EmbeddedRedis
from app.core.models import Account, Node
from app.core.services import node_tokens, nodes
from app.core.services.heartbeats import FIELD, STREAM
from app.web.heartbeat_fastpath import HeartbeatFastPath
from tests import fleet
from tests.fixtures.accounts import Person

Sessions = sessionmaker[Session]
PATH = "/agent/v1/heartbeat"
BEAT = {
    "sequence": 3, "cpu_usage": 12.5, "memory_usage": 50, "disk_usage": 1.5,
    "network_rx": 1000, "network_tx": 10, "uptime_seconds": 99.5,
    "devices": [{"index": 0, "name": "NVIDIA GeForce RTX 4090", "vendor_id": 4318,
                 "device_id": 9860, "memory_gb": 24, "usage": 97, "mem_usage": 80.5, "temp": 70,
                 "power_usage": 400, "power_limit_w": 450}],
    "replicas": [{"model_name": "llama", "state": "ready", "running": 3, "waiting": 0}],
}  # fmt: skip
# Everything that is wrong with a body, and what is said of it.
BAD_BODIES = [
    b"{", b"[]", b"null", b'"x"', b'{"cpu_usage": "many"}', b'{"sequence": -1}',
    b'{"sequence": 1.5}', b'{"devices": {}}', b'{"devices": [{}]}',
    b'{"devices": [{"index": 5000}]}', b'{"network_rx": -5}', b'{"cpu_usage": 1e400}',
    b'{"devices": [{"index": 0, "name": "%s"}]}' % (b"x" * 201), b'{"cpu_usage": NaN}',
    b'{"replicas": [{"model_name": ""}]}', b"\xff\xfe",
]  # fmt: skip


@pytest.fixture(params=["fast path", "route"])
def door(request: pytest.FixtureRequest, app: Flask) -> FlaskClient:
    """A caller of the app with the fast path, and of the one without."""
    if request.param == "route":
        fast = app.wsgi_app
        assert isinstance(fast, HeartbeatFastPath)
        app.wsgi_app = fast._inner  # type: ignore[method-assign]
    return app.test_client()


def received(store: Redis) -> list[Any]:
    lines = [line for _, entry in store.xrange(STREAM) for line in entry[FIELD].split(b"\n")]
    return [decode_received(line) for line in lines]


class TestGoodBeats:
    def test_are_in_redis_before_they_are_answered(
        self, door: FlaskClient, node: fleet.TestNode, redis_client: Redis
    ) -> None:
        before = utc_now().timestamp() * 1000 - 1
        answer = door.post(PATH, json=BEAT, headers=node.headers)
        assert answer.status_code == 200
        assert answer.get_json() == {"ok": True, "desired_revision": 0, "draining": False}
        (one,) = received(redis_client)
        assert one.node_id == node.id
        assert before <= one.at_ms <= utc_now().timestamp() * 1000
        assert one.beat.devices[0].power_limit_w == 450
        assert (one.beat.cpu_usage, one.beat.replicas[0].running) == (12.5, 3)

    def test_need_nothing(self, door: FlaskClient, node: fleet.TestNode) -> None:
        assert door.post(PATH, json={}, headers=node.headers).status_code == 200

    def test_may_know_fields_that_the_hub_does_not(
        self, door: FlaskClient, node: fleet.TestNode
    ) -> None:
        beat = {**BEAT, "mood": "good", "devices": [{"index": 0, "fan": 3}]}
        assert door.post(PATH, json=beat, headers=node.headers).status_code == 200

    def test_are_told_of_a_change_within_a_second(
        self, door: FlaskClient, node: fleet.TestNode, sessions: Sessions, admin: Person,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr(node_tokens, "SYNC_SECONDS", 0.0)
        door.post(PATH, json=BEAT, headers=node.headers)
        with sessions.begin() as session:
            nodes.edit_node(
                session, admin.identity, session.get_one(Node, node.id),
                wanted_status="maintenance", now=utc_now(),
            )  # fmt: skip
        answer = door.post(PATH, json=BEAT, headers=node.headers)
        assert answer.get_json() == {"ok": True, "desired_revision": 1, "draining": True}


class TestRefusals:
    @pytest.mark.parametrize("body", BAD_BODIES)
    def test_bad_bodies(
        self, door: FlaskClient, node: fleet.TestNode, redis_client: Redis, body: bytes
    ) -> None:
        answer = door.post(
            PATH, data=body, content_type="application/json", headers=node.headers
        )
        problem = json.loads(answer.data)
        assert (answer.status_code, problem["code"]) == (400, "invalid")
        assert answer.mimetype == "application/problem+json"
        assert redis_client.xlen(STREAM) == 0

    @pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer x", "Token {token}"])
    def test_wrong_tokens(
        self, door: FlaskClient, node: fleet.TestNode, authorization: str
    ) -> None:
        headers = {"Authorization": authorization.format(token=node.token)}
        assert door.post(PATH, json=BEAT, headers=headers).status_code == 401

    def test_another_content_type(self, door: FlaskClient, node: fleet.TestNode) -> None:
        answer = door.post(PATH, data=b"{}", content_type="text/plain", headers=node.headers)
        assert answer.status_code == 415

    def test_another_method(self, door: FlaskClient, node: fleet.TestNode) -> None:
        assert door.get(PATH, headers=node.headers).status_code == 405

    def test_a_body_beyond_measure(
        self, make_app: Callable[..., Flask], node: fleet.TestNode
    ) -> None:
        client = make_app(max_json_bytes=100_000).test_client()
        answer = client.post(PATH, json={"mood": "x" * 200_000}, headers=node.headers)
        assert answer.status_code == 413

    def test_far_too_many(self, door: FlaskClient, node: fleet.TestNode) -> None:
        statuses = [
            door.post(PATH, json={}, headers=node.headers).status_code
            for _ in range(node_tokens.MAX_BEATS_PER_WINDOW + 2)
        ]
        assert statuses[0] == 200
        assert statuses[-1] == 429


class TestRevocation:
    @pytest.mark.parametrize("how", ["node removed", "account closed", "token replaced"])
    def test_takes_effect_within_a_second(
        self, door: FlaskClient, node: fleet.TestNode, sessions: Sessions, owner: Person,
        how: str, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        assert node_tokens.SYNC_SECONDS < 1
        monkeypatch.setattr(node_tokens, "SYNC_SECONDS", 0.0)
        assert door.post(PATH, json=BEAT, headers=node.headers).status_code == 200
        with sessions.begin() as session:
            row, account = session.get_one(Node, node.id), session.get_one(Account, owner.id)
            if how == "node removed":
                nodes.remove_node(session, row, now=utc_now())
            elif how == "account closed":
                account.is_active, account.updated_at = False, utc_now()
        if how == "token replaced":
            fleet.make_node(sessions, owner.id, client_id=node.client_id)
        assert door.post(PATH, json=BEAT, headers=node.headers).status_code == 401


class TestWithoutRedis:
    def test_agents_are_asked_to_come_again(
        self, make_app: Callable[..., Flask], node: fleet.TestNode, own_redis: EmbeddedRedis
    ) -> None:
        client = make_app(redis_url=own_redis.url).test_client()
        assert client.post(PATH, json=BEAT, headers=node.headers).status_code == 200
        own_redis.kill()
        answer = client.post(PATH, json=BEAT, headers=node.headers)
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        own_redis.start()
        assert client.post(PATH, json=BEAT, headers=node.headers).status_code == 200
        with Redis.from_url(own_redis.url) as store:
            assert len(received(store)) == 2
