"""Callers of every route, and somebody who owns one thing of every kind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from sqlalchemy.orm import Session, sessionmaker

from app.config import Settings
from tests.fixtures.accounts import MakePerson, Person
from tests.security.routes import Knocker
from tests.security.sending import Sender
from tests.security.things import MAKERS, MARK, Things, enrolment_secret


@pytest.fixture(autouse=True)
def _look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was over before anybody looked is read from the database without a pause."""
    monkeypatch.setattr("app.web.live.DATABASE_LOOK_SECONDS", 0.0)
    monkeypatch.setattr("app.web.live.LOOK_SECONDS", 0.01)


@pytest.fixture
def knock(app: Flask) -> Knocker:
    """Calls any route as anybody."""
    return Knocker(app)


@pytest.fixture
def owner(make_person: MakePerson) -> Person:
    """Who owns what strangers are after; the mark stands in the names too."""
    return make_person(f"{MARK}-owner")


@pytest.fixture
def things(sessions: sessionmaker[Session], owner: Person, settings: Settings) -> Things:
    """Makes things of the owner's."""
    return Things(sessions, owner, settings.data_dir)


@pytest.fixture
def sender(
    make_app: Callable[..., Flask],
    admin: Person,
    owner: Person,
    things: Things,
    sessions: sessionmaker[Session],
) -> Sender:
    """Somebody with an account, an admin, a node and a token for more nodes."""
    app = make_app(sync_wait_seconds=0.1, signin_limit_per_minute=100_000)
    found = Sender(app, admin, owner, things.node(), enrolment_secret(sessions, owner))
    found.values = {
        stem: make(things) for stem, make in MAKERS.items() if not stem.startswith("/client/")
    }
    found.values["/client/list/<int:client_id>"] = {"client_id": owner.id}
    return found
