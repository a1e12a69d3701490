"""What runs used: one row a run, and sums by account and hour."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.core.database import Queries
from app.core.domain.runs import RunState, Usage
from app.core.models import UsageHour, UsageRecord

if TYPE_CHECKING:
    from app.core.services.claims import Claim, Result


def milliseconds(start: datetime | None, end: datetime | None) -> int | None:
    """The whole milliseconds between two moments; None when one is unknown."""
    if start is None or end is None:
        return None
    return max(0, round((end - start).total_seconds() * 1000))


def record(
    session: Queries, run: Any, *, state: RunState, tokens: Usage, now: datetime
) -> None:
    """Write the usage of a run that ended outside a worker's claim."""
    row = {
        "run_id": run.id, "account_id": run.account_id, "node_id": run.node_id,
        "model_name": run.model_name, "state": state, "attempts": run.attempt,
        "input_tokens": tokens.input_tokens, "output_tokens": tokens.output_tokens,
        "first_token_ms": None, "duration_ms": milliseconds(run.created_at, now), "at": now,
    }  # fmt: skip
    _write(session, [row])


def record_claims(
    session: Queries, ends: Sequence[tuple[Claim, Result]], *, now: datetime
) -> None:
    """Write the usage of claims that ended."""
    if ends:
        _write(session, [_row(claim, result, now) for claim, result in ends])


def _row(claim: Claim, result: Result, now: datetime) -> dict[str, Any]:
    return {
        "run_id": claim.run_id, "account_id": claim.account_id,
        "node_id": claim.candidate.node_id, "model_name": claim.request.model,
        "state": result.state, "attempts": claim.attempt,
        "input_tokens": result.usage.input_tokens, "output_tokens": result.usage.output_tokens,
        "first_token_ms": milliseconds(claim.created_at, result.first_chunk_at),
        "duration_ms": milliseconds(claim.created_at, now), "at": now,
    }  # fmt: skip


_INSERT_RECORD = sa.insert(UsageRecord.__table__)  # type: ignore[arg-type]
_SUMMED = ("runs", "failed", "input_tokens", "output_tokens")


@functools.cache
def _add_to_hour(dialect: str) -> Any:
    """The upsert that adds to an hour's sums; both databases have the same words for it."""
    insert: Any = sqlite.insert if dialect == "sqlite" else postgresql.insert
    table: Any = UsageHour.__table__
    statement = insert(table)
    added = {name: table.c[name] + statement.excluded[name] for name in _SUMMED}
    return statement.on_conflict_do_update(index_elements=["account_id", "hour"], set_=added)


def _write(session: Queries, rows: Sequence[dict[str, Any]]) -> None:
    session.execute(_INSERT_RECORD, rows)
    sums: dict[tuple[int, datetime], dict[str, Any]] = {}
    for row in rows:
        hour = row["at"].replace(minute=0, second=0, microsecond=0)
        start = {"account_id": row["account_id"], "hour": hour, **dict.fromkeys(_SUMMED, 0)}
        total = sums.setdefault((row["account_id"], hour), start)
        total["runs"] += 1
        total["failed"] += int(row["state"] == RunState.FAILED)
        total["input_tokens"] += row["input_tokens"] or 0
        total["output_tokens"] += row["output_tokens"] or 0
    # In one order everywhere, so that two workers never wait for each other in a circle.
    ordered = [sums[key] for key in sorted(sums)]
    bind = session if isinstance(session, sa.Connection) else session.get_bind()
    session.execute(_add_to_hour(bind.dialect.name), ordered)


@dataclass(frozen=True, slots=True)
class HourOfUse:
    """One hour's sums."""

    hour: datetime
    runs: int
    failed: int
    input_tokens: int
    output_tokens: int


def list_hours(
    session: Session, *, account_id: int | None, until: datetime, hours: int = 24
) -> list[HourOfUse]:
    """The last `hours` hours in order, those without use included; None: of everybody."""
    last = until.replace(minute=0, second=0, microsecond=0)
    first = last - timedelta(hours=hours - 1)
    columns = [
        UsageHour.runs,
        UsageHour.failed,
        UsageHour.input_tokens,
        UsageHour.output_tokens,
    ]
    query = (
        sa.select(UsageHour.hour, *(sa.func.sum(column) for column in columns))
        .where(UsageHour.hour >= first, UsageHour.hour <= last)
        .group_by(UsageHour.hour)
    )
    if account_id is not None:
        query = query.where(UsageHour.account_id == account_id)
    found = {
        row[0]: HourOfUse(row[0], *(int(value) for value in row[1:]))
        for row in session.execute(query)
    }
    wanted = [first + timedelta(hours=index) for index in range(hours)]
    return [found.get(hour) or HourOfUse(hour, 0, 0, 0, 0) for hour in wanted]
