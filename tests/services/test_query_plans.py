"""The hot path never reads history: its queries use the small indexes of live runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session

from app.core.services import claims, placement, reaper, runs

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOT: dict[str, Any] = {
    "count_outstanding": lambda s: placement.count_outstanding(s),
    "count_queued": lambda s: runs.count_queued(s),
    "count_live": lambda s: runs.count_live(s, account_id=1),
    "find_ready": lambda s: reaper.find_ready(
        s, lambda _: [], rung_before=NOON, grace_until=NOON
    ),
    "find_orphans": lambda s: reaper.find_orphans(s, now=NOON),
    "end_overdue": lambda s: reaper.end_overdue(s, now=NOON),
    "renew_leases": lambda s: claims.renew_leases(s, "w", lease_seconds=1, now=NOON),
}


@pytest.mark.parametrize("name", HOT)
def test_no_hot_query_scans_all_runs(session: Session, name: str) -> None:
    said: list[tuple[str, Any]] = []
    engine = session.get_bind()

    def listen(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        said.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", listen)
    try:
        HOT[name](session)
    finally:
        event.remove(engine, "before_cursor_execute", listen)
    session.rollback()
    assert said
    if engine.dialect.name == "sqlite":
        for statement, parameters in said:
            plan = session.connection().exec_driver_sql(
                f"EXPLAIN QUERY PLAN {statement}", parameters
            )
            steps = [row[-1] for row in plan]
            assert any("USING" in step and "INDEX" in step for step in steps), (
                statement,
                steps,
            )
    else:
        # PostgreSQL reads a table of a few rows whole whatever the indexes: ask it not to.
        session.execute(sa.text("SET LOCAL enable_seqscan = off"))
        for statement, parameters in said:
            plan = session.connection().exec_driver_sql(f"EXPLAIN {statement}", parameters)
            text = "\n".join(row[0] for row in plan)
            assert "ix_runs_" in text, text
