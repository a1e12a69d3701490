"""What an account has used of its plan, counted from what is there."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.runs import RunState
from app.core.models import Base, Run

FREE_PLAN = "free"


@dataclass(frozen=True, slots=True)
class PlanUsage:
    """Counters of one account."""

    queries: int
    fine_tune_jobs: int
    datasets: int


def count_usage(session: Session, account_id: int) -> PlanUsage:
    """How much this account has asked, trained and stored."""
    return PlanUsage(
        queries=_count_queries(session, account_id),
        fine_tune_jobs=_count_rows(session, "training_jobs", account_id),
        datasets=_count_rows(session, "datasets", account_id),
    )


def _count_queries(session: Session, account_id: int) -> int:
    """Questions in chats that were answered."""
    answered = sa.select(sa.func.count()).where(
        Run.account_id == account_id, Run.door == "dualquery", Run.state == RunState.SUCCEEDED
    )
    return session.scalar(answered) or 0


def _count_rows(session: Session, table_name: str, account_id: int) -> int:
    table = Base.metadata.tables.get(table_name)
    if table is None:
        return 0
    return (
        session.scalar(
            sa.select(sa.func.count())
            .select_from(table)
            .where(table.c.account_id == account_id)
        )
        or 0
    )
