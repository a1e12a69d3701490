"""Runs that are cancelled while they wait: no worker ever writes them, and none runs here."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from sqlalchemy.orm import Session, sessionmaker

from app.core.models import Run, UsageHour, UsageRecord
from app.core.stream import end_unwritten, read_events
from tests import fleet
from tests.fixtures.accounts import Person
from tests.fixtures.waiting import eventually

MODEL = "waiting-model"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Why?"}], "stream": True}
NEVER = 1e9


@pytest.fixture(autouse=True)
def _network(
    sessions: sessionmaker[Session], owner: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that would serve; readers that never look into the database or by themselves."""
    fleet.serve(sessions, fleet.make_node(sessions, owner.id), MODEL)
    monkeypatch.setattr("app.web.live.DATABASE_LOOK_SECONDS", NEVER)
    monkeypatch.setattr("app.core.stream.hub.FIRST_LOOK_SECONDS", NEVER)
    monkeypatch.setattr("app.core.stream.hub.QUIET_SECONDS", NEVER)


class Reading:
    """A request in a thread of its own."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self.status = 0
        self.text = ""
        self.headers: dict[str, str] = {}
        self._ask = ask
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self) -> Reading:
        self._thread.join(timeout=60)
        assert not self._thread.is_alive(), "the reader waits in vain"
        return self

    def _run(self) -> None:
        answer = self._ask()
        self.status, self.headers = answer.status_code, dict(answer.headers)
        self.text = answer.get_data(as_text=True)
        answer.close()


@pytest.fixture
def asked(
    app: Flask, client: FlaskClient, owner: Person, sessions: sessionmaker[Session]
) -> Any:
    """A stream that waits for a worker; its reader, and its run's uid."""
    reading = Reading(
        lambda: client.post("/v1/chat/completions", json=CHAT, headers=owner.headers())
    )

    def uid() -> str | None:
        with sessions() as session:
            return session.scalar(sa.select(Run.uid))

    found = eventually(uid, what="the run")
    live = app.extensions["weft_live"]
    eventually(lambda: live.hub.reader_count == 1, what="the stream's reader")
    yield reading, found
    reading.wait()


def test_its_stream_ends_at_once(app: Flask, owner: Person, asked: Any) -> None:
    reading, uid = asked

    answer = app.test_client().post(f"/v1/runs/{uid}/cancel", headers=owner.headers())

    assert answer.get_json()["state"] == "cancelled"
    assert reading.wait().status == 503
    assert "cancelled" in json.loads(reading.text)["error"]["message"]


def test_whoever_follows_it_hears_the_end_at_once(
    app: Flask, make_app: Callable[..., Flask], owner: Person, asked: Any
) -> None:
    _, uid = asked
    other = make_app()
    follower = Reading(
        lambda: other.test_client().get(f"/v1/runs/{uid}/events", headers=owner.headers())
    )
    eventually(lambda: other.extensions["weft_live"].hub.reader_count == 1)

    app.test_client().post(f"/v1/runs/{uid}/cancel", headers=owner.headers())

    lines = follower.wait().text.splitlines()
    assert lines[:2] == ["event: end", "id: 1"]
    value = json.loads(lines[2].removeprefix("data: "))
    assert (value["state"], value["finish_reason"]) == ("cancelled", "cancelled")


def test_whoever_comes_later_finds_the_end(app: Flask, owner: Person, asked: Any) -> None:
    _, uid = asked
    client = app.test_client()
    client.post(f"/v1/runs/{uid}/cancel", headers=owner.headers())

    late = Reading(lambda: client.get(f"/v1/runs/{uid}/events", headers=owner.headers()))

    assert "event: end" in late.wait().text


def test_it_counts_as_a_run_that_used_nothing(
    app: Flask, owner: Person, asked: Any, sessions: sessionmaker[Session]
) -> None:
    reading, uid = asked
    for _ in range(2):  # a second word changes nothing
        app.test_client().post(f"/v1/runs/{uid}/cancel", headers=owner.headers())
    reading.wait()

    with sessions() as session:
        [record] = session.scalars(sa.select(UsageRecord))
        [hour] = session.scalars(sa.select(UsageHour))
    assert (record.state, record.account_id, record.attempts) == ("cancelled", owner.id, 0)
    assert (record.input_tokens, record.output_tokens) == (None, None)
    assert (record.node_id, record.first_token_ms) == (None, None)
    assert record.duration_ms >= 0
    assert (hour.runs, hour.failed, hour.output_tokens) == (1, 0, 0)


def test_a_run_that_was_written_keeps_the_end_it_has(redis_url: str) -> None:
    first, second = {"state": "succeeded"}, {"state": "cancelled"}
    with Redis.from_url(redis_url) as store:
        end_unwritten(store, "twice", first)
        end_unwritten(store, "twice", second)

        assert [event.value for event in read_events(store, "twice")] == [first]
        assert store.ttl("weft:run:twice") > 0
