"""Callers of every route, and somebody who owns one thing of every kind."""

from __future__ import annotations

import pytest
from flask import Flask
from sqlalchemy.orm import Session, sessionmaker

from tests.fixtures.accounts import MakePerson, Person
from tests.security.routes import Knocker
from tests.security.things import MARK, Things


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
