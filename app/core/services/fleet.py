"""Nodes as people look at them: status, devices, models and load, read in a few queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.runs import RunState
from app.core.models import Account, Device, Node, Replica, Run
from app.core.services import placement


@dataclass(frozen=True, slots=True)
class FleetDevice:
    """A GPU of a node, or its CPU."""

    name: str
    kind: str
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class FleetReplica:
    """A model that a node serves or is about to."""

    model_name: str
    engine: str
    state: str
    concurrency: int
    error: str | None


@dataclass(frozen=True, slots=True)
class FleetNode:
    """A node now. `status`: online, warning, invalid, maintenance or offline."""

    id: int
    client_id: str
    name: str
    status: str
    os_type: str
    agent_version: str
    owner: str
    last_beat_at: datetime | None
    devices: tuple[FleetDevice, ...]
    replicas: tuple[FleetReplica, ...]
    runs_now: int


@dataclass(frozen=True, slots=True)
class NodeCounts:
    """How many nodes there are, and how many of them are online."""

    online: int
    total: int


def count_nodes(
    session: Session,
    *,
    now: datetime,
    offline_after_seconds: float,
    account_id: int | None = None,
) -> NodeCounts:
    """Nodes of the network, or of one account."""
    online = sa.case((placement.online_condition(now, offline_after_seconds), 1), else_=0)
    query = sa.select(sa.func.coalesce(sa.func.sum(online), 0), sa.func.count()).where(
        Node.removed_at.is_(None)
    )
    if account_id is not None:
        query = query.where(Node.account_id == account_id)
    counted = session.execute(query).one()
    return NodeCounts(int(counted[0]), int(counted[1]))


def list_nodes(
    session: Session,
    *,
    now: datetime,
    offline_after_seconds: float,
    account_id: int | None = None,
    limit: int = 25,
    offset: int = 0,
) -> tuple[list[FleetNode], int]:
    """Nodes of one account, or everybody's, by name, and how many there are."""
    wanted: list[sa.ColumnElement[bool]] = [Node.removed_at.is_(None)]
    if account_id is not None:
        wanted.append(Node.account_id == account_id)
    total = session.scalar(sa.select(sa.func.count()).select_from(Node).where(*wanted)) or 0
    is_online = placement.online_condition(now, offline_after_seconds)
    rows = session.execute(
        sa.select(Node, Account.username, sa.case((is_online, 1), else_=0))
        .join(Account, Account.id == Node.account_id)
        .where(*wanted)
        .order_by(Node.name, Node.id)
        .limit(limit)
        .offset(offset)
    ).all()
    ids = [row[0].id for row in rows]
    devices, replicas, running = (
        _devices(session, ids),
        _replicas(session, ids),
        _running(session, ids),
    )
    return [
        FleetNode(
            id=node.id, client_id=node.client_id, name=node.name,
            status=_status(node, is_online=bool(online)), os_type=node.os_type,
            agent_version=node.agent_version, owner=owner, last_beat_at=node.last_beat_at,
            devices=tuple(devices[node.id]), replicas=tuple(replicas[node.id]),
            runs_now=running.get(node.id, 0),
        )
        for node, owner, online in rows
    ], total  # fmt: skip


def node_names(session: Session, node_ids: Iterable[int | None]) -> dict[int, str]:
    """Names by id, also of nodes that are gone."""
    wanted = {node_id for node_id in node_ids if node_id is not None}
    if not wanted:
        return {}
    rows = session.execute(sa.select(Node.id, Node.name).where(Node.id.in_(wanted)))
    return {row.id: row.name for row in rows}


def _status(node: Node, *, is_online: bool) -> str:
    if not is_online:
        return "offline"
    if node.valid_status != "valid":
        return node.valid_status
    return "online" if node.wanted_status in {"active", "online"} else node.wanted_status


def _devices(session: Session, node_ids: list[int]) -> dict[int, list[FleetDevice]]:
    found: dict[int, list[FleetDevice]] = defaultdict(list)
    for device in session.scalars(
        sa.select(Device).where(Device.node_id.in_(node_ids)).order_by(Device.index)
    ):
        found[device.node_id].append(FleetDevice(device.name, device.kind, device.memory_bytes))
    return found


def _replicas(session: Session, node_ids: list[int]) -> dict[int, list[FleetReplica]]:
    found: dict[int, list[FleetReplica]] = defaultdict(list)
    for row in session.scalars(
        sa.select(Replica).where(Replica.node_id.in_(node_ids)).order_by(Replica.model_name)
    ):
        found[row.node_id].append(
            FleetReplica(row.model_name, row.engine, row.state, row.concurrency, row.error)
        )
    return found


def _running(session: Session, node_ids: list[int]) -> dict[int, int]:
    rows = session.execute(
        sa.select(Run.node_id, sa.func.count())
        .where(Run.state == RunState.RUNNING, Run.node_id.in_(node_ids))
        .group_by(Run.node_id)
    )
    return {node_id: count for node_id, count in rows if node_id is not None}
