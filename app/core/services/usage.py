"""What runs used: one row a run, and sums by account and hour."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.core.domain.runs import RunState, Usage
from app.core.models import Run, UsageHour, UsageRecord

if TYPE_CHECKING:
    from app.core.services.claims import Claim, Result


def milliseconds(start: datetime | None, end: datetime | None) -> int | None:
    """The whole milliseconds between two moments; None when one is unknown."""
    if start is None or end is None:
        return None
    return max(0, round((end - start).total_seconds() * 1000))


def record(
    session: Session, run: Run, *, state: RunState, tokens: Usage, now: datetime
) -> None:
    """Write the usage of a run that ended outside a worker's claim."""
    _write(
        session,
        run_id=run.id, account_id=run.account_id, node_id=run.node_id,
        model_name=run.model_name, state=state, attempts=run.attempt,
        input_tokens=tokens.input_tokens, output_tokens=tokens.output_tokens,
        first_token_ms=None, duration_ms=milliseconds(run.created_at, now), at=now,
    )  # fmt: skip


def record_claim(session: Session, claim: Claim, result: Result, *, now: datetime) -> None:
    """Write the usage of a claim that ended."""
    _write(
        session,
        run_id=claim.run_id, account_id=claim.account_id, node_id=claim.candidate.node_id,
        model_name=claim.request.model, state=result.state, attempts=claim.attempt,
        input_tokens=result.usage.input_tokens, output_tokens=result.usage.output_tokens,
        first_token_ms=milliseconds(claim.created_at, result.first_chunk_at),
        duration_ms=milliseconds(claim.created_at, now), at=now,
    )  # fmt: skip


def _write(session: Session, **row: Any) -> None:
    session.execute(sa.insert(UsageRecord).values(**row))
    hour = row["at"].replace(minute=0, second=0, microsecond=0)
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = insert(UsageHour).values(
        account_id=row["account_id"],
        hour=hour,
        runs=1,
        failed=int(row["state"] == RunState.FAILED),
        input_tokens=row["input_tokens"] or 0,
        output_tokens=row["output_tokens"] or 0,
    )
    new = statement.excluded
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["account_id", "hour"],
            set_={
                name: getattr(UsageHour, name) + new[name]
                for name in ("runs", "failed", "input_tokens", "output_tokens")
            },
        )
    )


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
