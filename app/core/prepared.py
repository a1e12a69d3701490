"""PostgreSQL: prepared statements that outlive the transaction they were prepared in."""

from __future__ import annotations

import psycopg
from psycopg._preparing import PrepareManager


class _KeptStatements(PrepareManager):
    """psycopg's list of what a connection has prepared, not emptied by a rollback."""

    def clear(self) -> bool:
        """Forget nothing; nothing to tell the server."""
        return False


def keep_statements(connection: psycopg.Connection) -> None:
    """Let a new connection keep what it prepares until it is closed.

    psycopg forgets all of it at a rollback, in case that undid the making of a table. Every
    read ends in a rollback, so nothing would stay prepared and the server would plan each
    statement anew, which takes as long as to run a short one. Our tables change between
    releases only; the server itself plans again when they do.
    """
    kept = _KeptStatements()
    kept.prepare_threshold = connection.prepare_threshold
    connection._prepared = kept
