"""Connections as every process of the hub sets them up."""

from __future__ import annotations

from datetime import UTC

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from app.core.models import Account
from tests.fixtures.accounts import Person

_PREPARED = sa.text("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE :like")
_ASKED = sa.select(Account.username, Account.created_at).where(
    Account.id == sa.bindparam("account_id")
)


def _ask(sessions: sessionmaker[Session], account_id: int, times: int) -> None:
    """Each time in a session of its own, which ends in a rollback as every read does."""
    for _ in range(times):
        with sessions() as session:
            assert session.execute(_ASKED, {"account_id": account_id}).all()


@pytest.mark.postgres
class TestPostgres:
    def test_what_was_prepared_outlives_rollbacks(
        self, sessions: sessionmaker[Session], owner: Person
    ) -> None:
        with sessions() as session:
            driver = session.connection().connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            threshold = driver.prepare_threshold
        assert threshold is not None
        _ask(sessions, owner.id, threshold + 1)
        with sessions() as session:
            like = {"like": "SELECT accounts.username, accounts.created_at%"}
            assert session.scalar(_PREPARED, like) == 1

    def test_a_table_made_again_is_found_by_what_was_prepared(
        self, sessions: sessionmaker[Session]
    ) -> None:
        driver = sa.text("SELECT name FROM made_again")
        for made in range(2):
            with sessions.begin() as session:
                session.execute(sa.text("CREATE TABLE made_again (name text)"))
                session.execute(sa.text(f"INSERT INTO made_again VALUES ('{made}')"))
            for _ in range(10):
                with sessions() as session:
                    assert session.scalar(driver) == str(made)
            with sessions.begin() as session:
                session.execute(sa.text("DROP TABLE made_again"))

    def test_moments_arrive_in_utc(
        self, sessions: sessionmaker[Session], owner: Person
    ) -> None:
        with sessions() as session:
            raw = session.connection().connection.driver_connection
            assert isinstance(raw, psycopg.Connection)
            row = raw.execute(
                "SELECT created_at FROM accounts WHERE id = %s", (owner.id,)
            ).fetchone()
            assert row is not None
            assert row[0].tzinfo is UTC
