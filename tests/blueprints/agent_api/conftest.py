"""What the agents of these tests have."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.models import Account
from app.core.services import enrolment
from tests import fleet
from tests.fixtures.accounts import Person


@pytest.fixture
def node(sessions: sessionmaker[Session], owner: Person) -> fleet.TestNode:
    """A node of the owner."""
    return fleet.make_node(sessions, owner.id, "garage")


@pytest.fixture
def enrolment_token(sessions: sessionmaker[Session], owner: Person) -> str:
    """Lets one machine join the owner's account."""
    with sessions.begin() as session:
        account = session.get_one(Account, owner.id)
        return enrolment.create_enrolment_token(session, account, now=utc_now())[1]
