"""What the hub received from nodes: raw beats, and a row a day.

No foreign keys to nodes here: these are written by the thousand, nodes are never deleted,
and the ingester has looked each of them up.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.core.models.base import Base


class Heartbeat(Base):
    """The beats of one node in one bucket of 120 seconds. The first one counts.

    Later beats of the bucket add their network bytes and nothing else. `devices` holds what
    points are counted from: index, name, PCI ids and the tflops that the hub found for each.
    """

    __tablename__ = "heartbeats"
    # Room in a page for the beats that are merged into its rows.
    __table_args__ = ({"sqlite_with_rowid": False, "postgresql_with": {"fillfactor": 70}},)

    node_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    # floor(unix time / 120), by the hub's clock.
    bucket: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    received_at: Mapped[datetime]
    cpu_usage: Mapped[float | None]
    memory_usage: Mapped[float | None]
    disk_usage: Mapped[float | None]
    network_rx: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    network_tx: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    devices: Mapped[list[Any]]
    # What each device measured: [[index, usage %, memory %, °C, W], …]; null is unknown.
    device_values: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    # The last beat merged into this row, unix milliseconds and the agent's own number.
    last_at_ms: Mapped[int] = mapped_column(sa.BigInteger)
    last_sequence: Mapped[int] = mapped_column(sa.BigInteger)
    # Whether a second beat of the bucket was merged: tells an insert from an update.
    is_merged: Mapped[bool] = mapped_column(default=False)


class NodeDailyStats(Base):
    """One node on one UTC day: counted beats, and sums that averages are made from."""

    __tablename__ = "node_daily_stats"
    __table_args__ = ({"sqlite_with_rowid": False},)

    node_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    day: Mapped[date] = mapped_column(primary_key=True)
    heartbeats: Mapped[int]
    cpu_sum: Mapped[float]
    cpu_count: Mapped[int]
    memory_sum: Mapped[float]
    memory_count: Mapped[int]
    disk_sum: Mapped[float]
    disk_count: Mapped[int]
    network_rx: Mapped[int] = mapped_column(sa.BigInteger)
    network_tx: Mapped[int] = mapped_column(sa.BigInteger)
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]
