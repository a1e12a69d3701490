"""Whose token is that? Answered from memory; changes are noticed within a second."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.core.clock import utc_now
from app.core.database import Sessions
from app.core.domain.nodes import is_draining
from app.core.models import Account, Node

log = logging.getLogger(__name__)

SYNC_SECONDS = 0.8
# A row may be committed so long after its time was set, and clocks may differ by as much.
OVERLAP = timedelta(seconds=10)
READ_AT_START = 100_000
WINDOW_SECONDS = 10.0
MAX_BEATS_PER_WINDOW = 30


@dataclass(slots=True)
class KnownNode:
    """What a beat's answer needs to know of its node."""

    node_id: int
    token_hash: str
    revision: int
    draining: bool
    window_began: float = 0.0
    beats_in_window: int = 0

    def may_beat(self, now: float) -> bool:
        """Count a beat; False when there were far too many lately."""
        if now - self.window_began > WINDOW_SECONDS:
            self.window_began, self.beats_in_window = now, 0
        self.beats_in_window += 1
        return self.beats_in_window <= MAX_BEATS_PER_WINDOW


_COLUMNS = (
    Node.id, Node.token_hash, Node.desired_revision, Node.wanted_status, Node.removed_at,
    Account.is_active, Node.updated_at, Account.updated_at,
)  # fmt: skip


class NodeTokens:
    """The tokens that this process has seen. One small query a second keeps them true.

    While the database is away the known ones go on being believed: nobody can revoke
    anything then either.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._by_hash: dict[str, KnownNode] = {}
        self._by_id: dict[int, KnownNode] = {}
        self._seen: datetime | None = None
        self._synced_at = utc_now()
        self._sync_due = 0.0

    def find(self, secret: str) -> KnownNode | None:
        """The node with this token; None when it opens nothing (any more)."""
        if time.monotonic() >= self._sync_due:
            self._sync()
        token_hash = hashlib.sha256(secret.encode()).hexdigest()
        return self._by_hash.get(token_hash) or self._look_up(token_hash)

    def forget(self) -> None:
        """Look at the database before the next answer."""
        self._sync_due = 0.0

    def _look_up(self, token_hash: str) -> KnownNode | None:
        query = _query().where(Node.token_hash == token_hash)
        with self._sessions() as session:
            row = session.execute(query).first()
        return self._take(row) if row is not None else None

    def _sync(self) -> None:
        self._sync_due = time.monotonic() + SYNC_SECONDS
        try:
            with self._sessions() as session:
                self._read_changes(session)
        except SQLAlchemyError as error:
            log.warning("node tokens wait for the database: %s", error)

    def _read_changes(self, session: Session) -> None:
        began = utc_now()
        if self._seen is None:
            self._read_all(session)
        else:
            # What we have seen need not be read again, unless something slipped in beside it.
            since = min(self._seen, self._synced_at - OVERLAP)
            self._take_all(session, _query().where(Node.updated_at > since))
            accounts = sa.select(Account.id).where(Account.updated_at > since)
            self._take_all(session, _query().where(Node.account_id.in_(accounts)))
        self._synced_at = began

    def _read_all(self, session: Session) -> None:
        """At the start: one query now is cheaper than one for each node's first beat."""
        self._seen = datetime.min.replace(tzinfo=UTC)
        tokens = _query().where(Node.token_hash.is_not(None)).order_by(Node.id.desc())
        self._take_all(session, tokens.limit(READ_AT_START))

    def _take_all(self, session: Session, query: sa.Select[*tuple[Any, ...]]) -> None:
        for row in session.execute(query):
            self._seen = max(self._seen or row[6], row[6], row[7])
            self._take(row)

    def _take(self, row: Any) -> KnownNode | None:
        node_id, token_hash, revision, wanted, removed_at, is_active = row[:6]
        old = self._by_id.get(node_id)
        is_open = token_hash is not None and removed_at is None and is_active
        if old is not None and is_open and old.token_hash == token_hash:
            old.revision, old.draining = revision, is_draining(wanted)
            return old
        if old is not None:
            del self._by_id[node_id]
            self._by_hash.pop(old.token_hash, None)
        if not is_open:
            return None
        new = KnownNode(node_id, token_hash, revision, is_draining(wanted))
        self._by_id[node_id] = self._by_hash[token_hash] = new
        return new


def _query() -> sa.Select[*tuple[Any, ...]]:
    return sa.select(*_COLUMNS).join(Account, Account.id == Node.account_id)
