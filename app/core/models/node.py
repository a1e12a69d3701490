"""Nodes, their devices, the models they serve, and torbiz's hardware rows."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.core.models.base import Base


def _joined_on(context: Any) -> date:
    created_at: datetime = context.get_current_parameters()["created_at"]
    return created_at.astimezone(UTC).date()


class Node(Base):
    """A provider's machine. Whether it is online follows from `last_beat_at`, never stored."""

    __tablename__ = "nodes"
    # Room in a page for the row's next version: a beat changes no index then.
    __table_args__ = ({"postgresql_with": {"fillfactor": 70}},)

    id: Mapped[int] = mapped_column(primary_key=True)
    client_id: Mapped[str] = mapped_column(sa.String(32), unique=True)
    account_id: Mapped[int] = mapped_column(sa.ForeignKey("accounts.id"), index=True)
    name: Mapped[str] = mapped_column(sa.String(64))
    os_type: Mapped[str] = mapped_column(sa.String(64), default="")
    token_hash: Mapped[str | None] = mapped_column(sa.String(64), unique=True)
    # What the owner asked for: active, online, maintenance, error.
    wanted_status: Mapped[str] = mapped_column(sa.String(16), default="active")
    valid_status: Mapped[str] = mapped_column(sa.String(16), default="valid")
    agent_version: Mapped[str] = mapped_column(sa.String(32), default="")
    inventory: Mapped[dict[str, Any] | None]
    desired_revision: Mapped[int] = mapped_column(default=0)
    # Not indexed: every beat moves it, and most nodes are online.
    last_beat_at: Mapped[datetime | None]
    # A clean stop: offline at once, until the next beat.
    stopped_at: Mapped[datetime | None]
    # Address of the web process that holds the agent's connection; null without one.
    relay: Mapped[str | None] = mapped_column(sa.String(200))
    # Counted by the ingester, so that lists need not add days up.
    total_heartbeats: Mapped[int] = mapped_column(default=0, server_default="0")
    uptime_days: Mapped[int] = mapped_column(default=0, server_default="0")
    # Of the day in `joined_on`.
    first_day_heartbeats: Mapped[int] = mapped_column(default=0, server_default="0")
    created_at: Mapped[datetime]
    # The UTC day of `created_at`: of a node's first day not the whole was expected of it.
    joined_on: Mapped[date] = mapped_column(default=_joined_on)
    # Moves when the token, the owner's wish or the desired state does; never by a beat.
    updated_at: Mapped[datetime] = mapped_column(index=True)
    removed_at: Mapped[datetime | None]


class Device(Base):
    """A GPU of a node, or its CPU when it has none."""

    __tablename__ = "devices"
    __table_args__ = (sa.UniqueConstraint("node_id", "index"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    node_id: Mapped[int] = mapped_column(sa.ForeignKey("nodes.id"))
    index: Mapped[int]
    kind: Mapped[str] = mapped_column(sa.String(8), default="gpu")
    name: Mapped[str] = mapped_column(sa.String(128), default="")
    uuid: Mapped[str | None] = mapped_column(sa.String(64))
    vendor_id: Mapped[int | None]
    device_id: Mapped[int | None]
    memory_bytes: Mapped[int | None] = mapped_column(sa.BigInteger)
    power_limit_watts: Mapped[float | None]
    physical_cores: Mapped[int | None]
    tflops: Mapped[float | None]
    updated_at: Mapped[datetime]


class Replica(Base):
    """One model that one node's engine serves. No `endpoint_url`: through the relay."""

    __tablename__ = "replicas"
    __table_args__ = (
        sa.UniqueConstraint("node_id", "model_name"),
        sa.Index("ix_replicas_model_name_state", "model_name", "state"),
        sa.Index("ix_replicas_probe_at", "probe_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    node_id: Mapped[int] = mapped_column(sa.ForeignKey("nodes.id"))
    model_name: Mapped[str] = mapped_column(sa.String(200))
    served_name: Mapped[str] = mapped_column(sa.String(200))
    engine: Mapped[str] = mapped_column(sa.String(16))
    state: Mapped[str] = mapped_column(sa.String(16))
    endpoint_url: Mapped[str | None] = mapped_column(sa.String(500))
    sealed_api_key: Mapped[str | None] = mapped_column(sa.String(500))
    concurrency: Mapped[int] = mapped_column(default=1)
    context_tokens: Mapped[int | None]
    engine_version: Mapped[str | None] = mapped_column(sa.String(64))
    error: Mapped[str | None] = mapped_column(sa.String(500))
    failures: Mapped[int] = mapped_column(default=0)
    backoff_until: Mapped[datetime | None]
    # When a worker has an answer generated, before the replica counts as ready; null: no need.
    probe_at: Mapped[datetime | None]
    proven_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class NodeAssignment(Base):
    """A model that the hub wants a node to serve: its desired state."""

    __tablename__ = "node_assignments"
    __table_args__ = (sa.UniqueConstraint("node_id", "model_name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    node_id: Mapped[int] = mapped_column(sa.ForeignKey("nodes.id"))
    model_name: Mapped[str] = mapped_column(sa.String(200))
    engine: Mapped[str] = mapped_column(sa.String(16))
    file: Mapped[str | None] = mapped_column(sa.String(300))
    # The catalogue's version that is fetched for it; null when the engine fetches by itself.
    catalog_model_id: Mapped[int | None] = mapped_column(sa.ForeignKey("catalog_models.id"))
    # Who wants it: `deployment:<uid>`, `auto`, `owner`.
    reason: Mapped[str] = mapped_column(sa.String(64), default="owner")
    created_at: Mapped[datetime]


class HardwareRecord(Base):
    """A machine as torbiz's clients describe it: texts, kept as they were given."""

    __tablename__ = "hardware_records"

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(sa.ForeignKey("accounts.id"), index=True)
    node_id: Mapped[int | None] = mapped_column(sa.ForeignKey("nodes.id"), unique=True)
    gpu_info: Mapped[str] = mapped_column(sa.String(1000))
    cpu_name: Mapped[str] = mapped_column(sa.String(255))
    cpu_core: Mapped[str] = mapped_column(sa.String(64))
    cpu_frequency: Mapped[str] = mapped_column(sa.String(64))
    total_memory: Mapped[str] = mapped_column(sa.String(64))
    total_swap: Mapped[str] = mapped_column(sa.String(64))
    ram: Mapped[str] = mapped_column(sa.String(64))
    os_name: Mapped[str] = mapped_column(sa.String(64))
    os_version: Mapped[str] = mapped_column(sa.String(128))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
