"""Research jobs and the steps that each is made of."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.core.models.base import Base


class ResearchJob(Base):
    """One question that is researched. `app.core.services.research_work` moves its state.

    `uid` names one asking of it and that asking's stream: asked anew, a job gets another.
    """

    __tablename__ = "research_jobs"
    __table_args__ = (
        sa.Index("ix_research_jobs_account_id_id", "account_id", "id"),
        sa.Index(
            "ix_research_jobs_live",
            "state",
            sqlite_where=sa.text("state IN ('queued', 'running')"),
            postgresql_where=sa.text("state IN ('queued', 'running')"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[str] = mapped_column(sa.String(24), unique=True)
    account_id: Mapped[int] = mapped_column(sa.ForeignKey("accounts.id"))
    credential_id: Mapped[int | None]
    question_text: Mapped[str] = mapped_column(sa.Text)
    image_file: Mapped[str | None] = mapped_column(sa.String(200))
    # Who answers, and who looks at the image; chosen when the question was asked.
    model_name: Mapped[str] = mapped_column(sa.String(200))
    vision_model_name: Mapped[str | None] = mapped_column(sa.String(200))
    context_tokens: Mapped[int | None]
    state: Mapped[str] = mapped_column(sa.String(16))
    reply_to: Mapped[str | None] = mapped_column(sa.String(64))
    attempt: Mapped[int] = mapped_column(default=0)
    worker: Mapped[str | None] = mapped_column(sa.String(64))
    lease_until: Mapped[datetime | None]
    answer_text: Mapped[str | None] = mapped_column(sa.Text)
    sources: Mapped[list[Any]] = mapped_column(default=list)
    error_code: Mapped[str | None] = mapped_column(sa.String(32))
    error: Mapped[str | None] = mapped_column(sa.String(500))
    created_at: Mapped[datetime]
    asked_at: Mapped[datetime]
    rung_at: Mapped[datetime]
    deadline_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class ResearchStep(Base):
    """One step of a job: written when it begins, and once more when it is done."""

    __tablename__ = "research_steps"
    __table_args__ = (sa.UniqueConstraint("job_id", "position"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(sa.ForeignKey("research_jobs.id", ondelete="CASCADE"))
    position: Mapped[int]
    kind: Mapped[str] = mapped_column(sa.String(16))
    title: Mapped[str] = mapped_column(sa.String(500))
    state: Mapped[str] = mapped_column(sa.String(16))
    # The runs that answer it, in order: more than one where a node or a worker died.
    runs: Mapped[list[Any]] = mapped_column(default=list)
    result: Mapped[str | None] = mapped_column(sa.Text)
    data: Mapped[dict[str, Any] | None]
    error: Mapped[str | None] = mapped_column(sa.String(500))
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
