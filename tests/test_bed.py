"""The test bed itself: databases come back empty, no test reaches another machine."""

from __future__ import annotations

import socket
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from app.core.models import Account
from tests.fixtures.databases import Database
from tests.fixtures.sockets import OutgoingConnection
from tests.fixtures.waiting import eventually

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def an_account() -> Account:
    return Account(
        uid="0" * 24, username="ada", email="ada@example.org", created_at=NOON, updated_at=NOON
    )


def test_other_machines_are_out_of_reach() -> None:
    with socket.socket() as caller, pytest.raises(OutgoingConnection):
        caller.connect(("192.0.2.1", 80))


def test_loopback_is_in_reach() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()


def test_eventually_gives_the_first_true_answer() -> None:
    answers = iter([None, 0, "yes", "too late"])

    assert eventually(lambda: next(answers)) == "yes"


def test_eventually_shows_the_last_failed_assertion() -> None:
    def never() -> bool:
        assert "this" == "that"
        return True

    with pytest.raises(AssertionError, match="still not so") as caught:
        eventually(never, timeout=0.01)
    assert "this" in str(caught.value.__cause__)


@pytest.mark.parametrize("attempt", [1, 2])
def test_what_a_test_commits_is_gone_for_the_next(session: Session, attempt: int) -> None:
    assert session.scalar(sa.select(sa.func.count()).select_from(Account)) == 0

    session.add(an_account())
    session.commit()


def test_a_commit_is_seen_by_other_sessions(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as writer:
        writer.add(an_account())

    with sessions() as reader:
        assert reader.scalar(sa.select(Account.username)) == "ada"


def test_the_engine_speaks_to_the_database_under_test(clean_database: Database) -> None:
    expected = {"sqlite": "sqlite", "postgres": "postgresql"}

    assert clean_database.engine.dialect.name == expected[clean_database.name]
