"""Runs, torbiz's records of them, and what was used."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.core.models.base import Base


class Run(Base):
    """One inference request. `app.core.services.runs` alone moves its state."""

    __tablename__ = "runs"
    __table_args__ = (
        # Live runs are few whatever the history: these stay small for ever.
        sa.Index(
            "ix_runs_queued",
            "id",
            "model_name",
            sqlite_where=sa.text("state = 'queued'"),
            postgresql_where=sa.text("state = 'queued'"),
        ),
        sa.Index(
            "ix_runs_running",
            "replica_id",
            "worker",
            sqlite_where=sa.text("state = 'running'"),
            postgresql_where=sa.text("state = 'running'"),
        ),
        sa.Index("ix_runs_account_id_id", "account_id", "id"),
        sa.Index("ix_runs_node_id_id", "node_id", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[str] = mapped_column(sa.String(24), unique=True)
    account_id: Mapped[int] = mapped_column(sa.ForeignKey("accounts.id"))
    credential_id: Mapped[int | None]
    door: Mapped[str] = mapped_column(sa.String(16))
    kind: Mapped[str] = mapped_column(sa.String(16))
    model_name: Mapped[str] = mapped_column(sa.String(200))
    request: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(sa.String(16))
    # The web process that waits for the chunks, and whether the run ends with its reader.
    reply_to: Mapped[str | None] = mapped_column(sa.String(64))
    is_attached: Mapped[bool] = mapped_column(default=False)
    attempt: Mapped[int] = mapped_column(default=0)
    tried_replicas: Mapped[list[Any]] = mapped_column(default=list)
    replica_id: Mapped[int | None]
    node_id: Mapped[int | None]
    worker: Mapped[str | None] = mapped_column(sa.String(64))
    lease_until: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    rung_at: Mapped[datetime]
    deadline_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    first_chunk_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    finish_reason: Mapped[str | None] = mapped_column(sa.String(16))
    error_code: Mapped[str | None] = mapped_column(sa.String(32))
    error: Mapped[str | None] = mapped_column(sa.String(500))
    answer_text: Mapped[str | None] = mapped_column(sa.Text)
    answer_extra: Mapped[dict[str, Any] | None]
    input_tokens: Mapped[int | None]
    output_tokens: Mapped[int | None]


# A database takes a partial index only for a condition written out as the index has it:
# with the state as a parameter it would read the whole history.
IS_QUEUED = Run.state == sa.literal_column("'queued'")
IS_RUNNING = Run.state == sa.literal_column("'running'")


class UsageRecord(Base):
    """What one finished run used: append-only, one row a run."""

    __tablename__ = "usage_records"

    run_id: Mapped[int] = mapped_column(sa.ForeignKey("runs.id"), primary_key=True)
    account_id: Mapped[int]
    node_id: Mapped[int | None]
    model_name: Mapped[str] = mapped_column(sa.String(200))
    state: Mapped[str] = mapped_column(sa.String(16))
    attempts: Mapped[int]
    input_tokens: Mapped[int | None]
    output_tokens: Mapped[int | None]
    first_token_ms: Mapped[int | None]
    duration_ms: Mapped[int | None]
    at: Mapped[datetime]


class UsageHour(Base):
    """Usage summed by account and hour, so that no page reads history run by run."""

    __tablename__ = "usage_hours"

    account_id: Mapped[int] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    runs: Mapped[int]
    failed: Mapped[int]
    input_tokens: Mapped[int] = mapped_column(sa.BigInteger)
    output_tokens: Mapped[int] = mapped_column(sa.BigInteger)


class Inference(Base):
    """A torbiz question. Its answer is its run's, unless the caller brought one along."""

    __tablename__ = "inferences"
    __table_args__ = (sa.Index("ix_inferences_account_id_id", "account_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(sa.ForeignKey("accounts.id"))
    run_id: Mapped[int | None] = mapped_column(sa.ForeignKey("runs.id"), index=True)
    question_text: Mapped[str] = mapped_column(sa.Text)
    desired_model: Mapped[str] = mapped_column(sa.String(200))
    imported_answer: Mapped[str | None] = mapped_column(sa.Text)
    created_at: Mapped[datetime]
