"""Engines and sessions on SQLite and PostgreSQL, with the same rules everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session, scoped_session, sessionmaker

_BUSY_TIMEOUT_SECONDS = 30


def engine_options(url: str) -> dict[str, Any]:
    """Arguments of `create_engine` for this database.

    SQLite: a transaction begins at its first write and takes the write lock at once
    (IMMEDIATE), so that it waits for its turn instead of failing half way; reads before it
    hold nothing. PostgreSQL: a pool that survives a restart of the server and hands out the
    connection that has prepared most; no JIT (it costs more than it gains on our short
    queries); moments in UTC, as the hub wants them.
    """
    if url.startswith("sqlite"):
        return {
            "connect_args": {
                "timeout": _BUSY_TIMEOUT_SECONDS,
                "isolation_level": "IMMEDIATE",
                "check_same_thread": False,
            }
        }
    return {
        "pool_pre_ping": True,
        "pool_size": 20,
        "max_overflow": 20,
        "pool_use_lifo": True,
        "connect_args": {"options": "-c jit=off -c timezone=UTC", "connect_timeout": 10},
    }


def make_engine(url: str) -> sa.Engine:
    """An engine of its own, for workers, commands and tests."""
    engine = sa.create_engine(url, **engine_options(url))
    install_rules(engine)
    return engine


def install_rules(engine: sa.Engine) -> None:
    """Set each new connection up. SQLite: WAL, foreign keys, patience.

    PostgreSQL: what was prepared stays prepared.
    """
    is_sqlite = engine.dialect.name == "sqlite"
    event.listen(engine, "connect", _prepare_sqlite if is_sqlite else _prepare_postgres)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_SECONDS * 1000}")
    cursor.close()


def _prepare_postgres(connection: Any, _record: object) -> None:
    # Here, so that a hub on SQLite does not load the driver.
    from app.core.prepared import keep_statements

    keep_statements(connection)


Sessions = sessionmaker[Session]

AnySession = Session | scoped_session[Any]
"""A session, or the one that is made when it is needed."""

Queries = AnySession | sa.Connection
"""Where a statement is executed: hot paths take the connection, which costs less."""


def make_sessions(engine: sa.Engine) -> Sessions:
    """A factory of sessions whose objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)


def take_turns(session: Session | sa.Connection, subject: str) -> None:
    """Let one transaction at a time do what depends on `subject`, until it ends.

    Call it before the first read that a write depends on: whoever waited here sees what the
    other has committed. On SQLite all writers wait for each other.
    """
    connection = session if isinstance(session, sa.Connection) else session.connection()
    if connection.dialect.name == "postgresql":
        key = sa.func.hashtextextended(subject, 0)
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))
    elif not connection.connection.dbapi_connection.in_transaction:  # type: ignore[union-attr]
        connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def unit_of_work(sessions: Sessions) -> Iterator[Session]:
    """One transaction: committed at the end, rolled back by an error."""
    with sessions() as session, session.begin():
        yield session
