"""Points: what devices earned a day, and the ledger of what was granted."""

from __future__ import annotations

from datetime import date, datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.core.models.base import Base


class DevicePointsDaily(Base):
    """One device of one node on one UTC day.

    `device_key` tells two devices apart that had the same index on the same day. Multiplier
    and points count ten-thousandths, so that sums are exact.
    """

    __tablename__ = "device_points_daily"
    __table_args__ = (
        # A year of a node's rows lies all over PostgreSQL's table: sums come from the index.
        # Points change once an hour, so most updates still leave the index alone.
        sa.PrimaryKeyConstraint(
            "node_id", "day", "device_index", "device_key",
            postgresql_include=["device_id", "points_e4"],
        ),
        {"sqlite_with_rowid": False},
    )  # fmt: skip

    node_id: Mapped[int] = mapped_column(autoincrement=False)
    day: Mapped[date]
    device_index: Mapped[int] = mapped_column(autoincrement=False)
    device_key: Mapped[str] = mapped_column(sa.String(32))
    device_name: Mapped[str] = mapped_column(sa.String(128))
    device_id: Mapped[int]
    heartbeats: Mapped[int]
    multiplier_e4: Mapped[int] = mapped_column(sa.BigInteger)
    points_e4: Mapped[int] = mapped_column(sa.BigInteger)


class PointGrant(Base):
    """A line of the ledger: never changed, never deleted. The balance is the sum of the rows.

    A day's total is granted once the day is over and its provider approved; should beats of
    that day still arrive, the difference follows as a further row (`sequence`).
    """

    __tablename__ = "point_grants"
    __table_args__ = (
        sa.UniqueConstraint("account_id", "reason", "day", "sequence"),
        sa.Index("ix_point_grants_account_id_id", "account_id", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(sa.ForeignKey("accounts.id"))
    # `day` (what devices earned on `day`) or `adjustment` (an admin's decision).
    reason: Mapped[str] = mapped_column(sa.String(16))
    day: Mapped[date]
    sequence: Mapped[int] = mapped_column(default=0)
    amount_e4: Mapped[int] = mapped_column(sa.BigInteger)
    # Who decided; null for the hub itself.
    actor_id: Mapped[int | None] = mapped_column(sa.ForeignKey("accounts.id"))
    note: Mapped[str] = mapped_column(sa.String(500), default="")
    created_at: Mapped[datetime]
