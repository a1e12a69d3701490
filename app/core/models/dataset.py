"""Datasets and documents that accounts upload, and files that nobody wants any more."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.core.models.base import Base


class Dataset(Base):
    """One uploaded file. `app.core.services.dataset_work` moves its status.

    `index_file` is named before it is written, so that whoever ends the row knows of it.
    """

    __tablename__ = "datasets"
    __table_args__ = (
        sa.UniqueConstraint("account_id", "name"),
        sa.Index("ix_datasets_account_id_created_at_id", "account_id", "created_at", "id"),
        sa.Index(
            "ix_datasets_processing",
            "id",
            sqlite_where=sa.text("status = 'processing'"),
            postgresql_where=sa.text("status = 'processing'"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[str] = mapped_column(sa.String(24), unique=True)
    account_id: Mapped[int] = mapped_column(sa.ForeignKey("accounts.id"))
    name: Mapped[str] = mapped_column(sa.String(255))
    description: Mapped[str] = mapped_column(sa.String(1000), default="")
    original_name: Mapped[str] = mapped_column(sa.String(255))
    format: Mapped[str] = mapped_column(sa.String(16))
    kind: Mapped[str] = mapped_column(sa.String(16))
    status: Mapped[str] = mapped_column(sa.String(16))
    # For people: why it failed, or what was left out of the index.
    status_message: Mapped[str | None] = mapped_column(sa.String(500))
    size_bytes: Mapped[int] = mapped_column(sa.BigInteger)
    checksum: Mapped[str] = mapped_column(sa.String(64))
    file_name: Mapped[str] = mapped_column(sa.String(200))
    headers: Mapped[list[Any] | None]
    preview_rows: Mapped[list[Any] | None]
    row_count: Mapped[int | None] = mapped_column(sa.BigInteger)
    column_count: Mapped[int | None]
    index_file: Mapped[str | None] = mapped_column(sa.String(200))
    passage_count: Mapped[int | None]
    used_in_research: Mapped[bool] = mapped_column(default=True)
    attempt: Mapped[int] = mapped_column(default=0)
    worker: Mapped[str | None] = mapped_column(sa.String(64))
    lease_until: Mapped[datetime | None]
    rung_at: Mapped[datetime]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class UnwantedFile(Base):
    """A stored file that no row names any more. It is deleted again some time later.

    Whoever removed the row deletes it at once; this line outlives a process that died before
    it could, and a worker that was still writing the file.
    """

    __tablename__ = "unwanted_files"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(200))
    unwanted_at: Mapped[datetime]
