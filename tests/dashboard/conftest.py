"""A browser without scripts: cookies, forms with their CSRF token, pages as parsed text."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker
from werkzeug.test import TestResponse

from app.core.clock import utc_now
from app.core.ids import new_uid
from app.core.models import Device, KnownModel, Node, Replica, Run
from tests.fixtures.accounts import Person

HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}'\"&")


class Browser:
    """What somebody without JavaScript can do."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client

    def open(self, path: str, **options: Any) -> TestResponse:
        """The whole answer; what it was read from is closed."""
        return self.client.get(path, buffered=True, **options)

    def part(self, path: str) -> TestResponse:
        """The page's part, as htmx asks for it."""
        return self.client.get(path, headers={"HX-Request": "true"})

    def csrf_token(self) -> str:
        page = self.client.get("/account")
        if page.status_code != 200:
            page = self.client.get("/sign-in")
        found = re.search(r'name="csrf-token" content="([^"]+)"', page.text)
        assert found
        return found[1]

    def send(self, path: str, **fields: str) -> TestResponse:
        """Submit a form with the page's token."""
        return self.client.post(path, data={"csrf_token": self.csrf_token(), **fields})

    def send_json(self, path: str, body: Any) -> TestResponse:
        headers = {"X-CSRFToken": self.csrf_token(), "Accept": "text/event-stream"}
        return self.client.post(path, json=body, headers=headers)


@pytest.fixture
def visitor(client: FlaskClient) -> Browser:
    """A browser in which nobody is signed in."""
    return Browser(client)


@pytest.fixture
def signed_in(app: Flask) -> Callable[[Person], Browser]:
    """A browser in which this person is signed in."""
    return lambda person: Browser(person.signed_in(app.test_client()))


@pytest.fixture
def browser(signed_in: Callable[[Person], Browser], owner: Person) -> Browser:
    """The owner's browser."""
    return signed_in(owner)


class Rows:
    """Rows that pages show, made with valid defaults."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self.sessions = sessions

    def add(self, row: Any) -> Any:
        with self.sessions.begin() as session:
            session.add(row)
            session.flush()
            session.expunge(row)
        return row

    def node(self, owner: Person, name: str = "atelier", **changes: Any) -> Node:
        now = utc_now()
        values: dict[str, Any] = {
            "client_id": f"{abs(hash((name, now))):032x}"[:32], "account_id": owner.id, "name": name,
            "os_type": "Linux", "agent_version": "1.0", "last_beat_at": now, "created_at": now,
            "updated_at": now,
        }  # fmt: skip
        return self.add(Node(**{**values, **changes}))

    def device(self, node: Node, name: str = "RTX 4090", **changes: Any) -> Device:
        values: dict[str, Any] = {
            "node_id": node.id, "index": 0, "name": name, "memory_bytes": 24 * 2**30,
            "updated_at": utc_now(),
        }  # fmt: skip
        return self.add(Device(**{**values, **changes}))

    def replica(self, node: Node, model: str = "smollm2", **changes: Any) -> Replica:
        now = utc_now()
        with self.sessions.begin() as session:
            if session.get(KnownModel, model) is None:
                session.add(KnownModel(name=model, first_seen_at=now))
        values: dict[str, Any] = {
            "node_id": node.id, "model_name": model, "served_name": model, "engine": "openai",
            "state": "ready", "endpoint_url": "http://127.0.0.1:9", "concurrency": 4,
            "created_at": now, "updated_at": now,
        }  # fmt: skip
        return self.add(Replica(**{**values, **changes}))

    def run(self, owner: Person, prompt: str = "Why is the sky blue?", **changes: Any) -> Run:
        now = utc_now()
        values: dict[str, Any] = {
            "uid": new_uid(), "account_id": owner.id, "door": "dashboard", "kind": "chat",
            "model_name": "smollm2", "state": "succeeded", "attempt": 1,
            "request": {"messages": [{"role": "user", "content": prompt}]},
            "created_at": now, "rung_at": now, "deadline_at": now + timedelta(minutes=5),
        }  # fmt: skip
        return self.add(Run(**{**values, **changes}))


@pytest.fixture
def rows(sessions: sessionmaker[Session]) -> Rows:
    """Makes rows."""
    return Rows(sessions)


def seconds_after(start: datetime, seconds: float) -> datetime:
    return start + timedelta(seconds=seconds)
