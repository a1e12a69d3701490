"""Where the web commits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session

from app.extensions import db


@contextmanager
def unit_of_work() -> Iterator[Session]:
    """The request's session as one transaction: committed at the end, rolled back by an error."""
    session = db.session()
    try:
        yield session
        session.commit()
    except BaseException:
        session.rollback()
        raise


def reading() -> Session:
    """The request's session, for a view that only reads."""
    return db.session()


def release() -> None:
    """Give the connection back before a stream begins: no session lives while tokens flow."""
    db.session.remove()
