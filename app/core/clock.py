"""The one clock. Services take `now` as an argument; edges ask here."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """This moment, aware, UTC."""
    return datetime.now(UTC)
