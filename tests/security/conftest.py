"""Callers of every route, and somebody who owns one thing of every kind."""

from __future__ import annotations

import pytest
from flask import Flask
from sqlalchemy.orm import Session, sessionmaker

from tests.fixtures.accounts import MakePerson, Person
from tests.security.routes import Knocker
from tests.security.things import MARK, Things


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
def things(sessions: sessionmaker[Session], owner: Person) -> Things:
    """Makes things of the owner's."""
    return Things(sessions, owner)
