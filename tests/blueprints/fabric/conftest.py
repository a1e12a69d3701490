"""A small fleet whose every figure is known, and how its answers are compared."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.services.node_reports import keep_live
from tests import fleet
from tests.fixtures.accounts import Person
from tests.fleet import RTX_3090, RTX_4090

GOLDEN = Path(__file__).parent / "golden"
DAY = fleet.at("2026-03-01 00:00:00")
ALPHA = "a1" * 16
BETA = "b2" * 16
_MOMENT = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")

Get = Callable[..., Any]


@pytest.fixture
def nodes(
    sessions: sessionmaker[Session], owner: Person, redis_client: Redis
) -> dict[str, fleet.TestNode]:
    """alpha: an RTX 4090, two days of beats, beating now. beta: an RTX 3090, silent."""
    alpha = fleet.make_node(
        sessions, owner.id, "Alpha_1", devices=[RTX_4090], joined=DAY, client_id=ALPHA
    )
    beta = fleet.make_node(
        sessions, owner.id, "beta", devices=[RTX_3090], joined=DAY, client_id=BETA
    )
    values = {"cpu_usage": 20.0, "memory_usage": 40.0, "disk_usage": 60.0,
              "network_rx": 1000, "network_tx": 500}  # fmt: skip
    measured = fleet.device_beat(RTX_4090, usage=97.0, mem_usage=80.0, temp=70.0,
                                 power_usage=400.0)  # fmt: skip
    second_day = DAY + timedelta(days=1)
    fleet.apply(sessions, fleet.beats(alpha, DAY, 720, **values))
    fleet.apply(sessions, fleet.beats(alpha, second_day, 45, **values))
    fleet.apply(sessions, fleet.beats(beta, DAY, 360, **values))
    fleet.serve(sessions, alpha, "llama")
    keep_live(redis_client, [fleet.beat(alpha, utc_now(), **values, devices=[measured])])
    return {"alpha": alpha, "beta": beta}


@pytest.fixture
def get(client: FlaskClient, owner: Person) -> Get:
    """GET as the owner; the answer's `data` after its envelope was checked."""

    def ask(path: str, *, expect: int = 200, person: Person = owner, **query: Any) -> Any:
        query.setdefault("user_id", owner.id)
        answer = client.get(path, query_string=query, headers=person.headers())
        return data_of(answer, expect)

    return ask


def data_of(answer: Any, status: int = 200) -> Any:
    """The data in the envelope, which looks as the contract says."""
    body = answer.get_json()
    assert set(body) == {"success", "data", "message", "timestamp"}
    assert _MOMENT.match(body["timestamp"])
    assert (answer.status_code, body["success"]) == (status, status == 200), body
    assert body["message"] == "success" if status == 200 else body["message"]
    return body["data"]


def assert_golden(name: str, data: Any) -> None:
    """`data` is what the golden file says, moments of this test run aside."""
    expected = json.loads((GOLDEN / f"{name}.json").read_text())
    assert _without_now(data) == expected


def _without_now(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_now(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_now(one) for one in value]
    if isinstance(value, str) and _MOMENT.match(value) and not value.startswith("2026-03"):
        return "<now>"
    return value
