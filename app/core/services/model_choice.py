"""Which model an idle node should serve: the largest of the catalogue that fits it.

What an owner or a deployment asked for comes first; a node is given a model here only while
nobody wants anything of it. Off unless AUTO_MODELS is set.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.nodes import ReplicaState, ValidStatus, WantedStatus
from app.core.models import CatalogModel, Device, Node, NodeAssignment, Replica
from app.core.services import desired
from app.core.services.catalog import CatalogEntry, list_versions
from app.core.services.desired import ENGINE_OF_TYPE
from app.core.services.placement import online_condition

AUTO = "auto"
BATCH = 200
_MB = 1_000_000
_GB = 1_000_000_000


def choose_models(session: Session, *, now: datetime, offline_after_seconds: float) -> int:
    """Give every idle node a model, take back what is no longer offered; gives how many moved."""
    return _take_back(session, now=now) + _give(
        session, now=now, offline_after_seconds=offline_after_seconds
    )


def _give(session: Session, *, now: datetime, offline_after_seconds: float) -> int:
    offered = list_versions(session, is_active=True)
    if not offered:
        return 0
    given = 0
    idle = _idle_nodes(session, now, offline_after_seconds)
    devices = _devices(session, [node.id for node in idle])
    for node in idle:
        best = best_fit(node.inventory or {}, devices.get(node.id, []), offered)
        if best is not None:
            desired.assign_model(
                session, node, model_name=best.name, engine=ENGINE_OF_TYPE[best.engine_type],
                catalog_model_id=best.id, reason=AUTO, now=now,
            )  # fmt: skip
            given += 1
    return given


def best_fit(
    inventory: dict[str, object], devices: Sequence[Device], offered: Sequence[CatalogEntry]
) -> CatalogEntry | None:
    """The most demanding version that this machine has an engine and the memory for."""
    listed = inventory.get("engines")
    engines = {str(kind) for kind in listed} if isinstance(listed, list) else set()
    gpu_bytes = sum(one.memory_bytes or 0 for one in devices if one.kind == "gpu")
    total = inventory.get("memory_bytes")
    ram_bytes = total if isinstance(total, int) else 0
    fitting = [
        entry
        for entry in offered
        if ENGINE_OF_TYPE.get(entry.engine_type) in engines
        and (entry.min_gpu_memory_gb or 0) * _GB <= gpu_bytes
        and (entry.min_memory_mb or 0) * _MB <= ram_bytes
    ]
    return max(fitting, key=_demand, default=None)


def _demand(entry: CatalogEntry) -> tuple[int, int, int, int, int]:
    return (
        entry.min_gpu_memory_gb or 0, entry.min_memory_mb or 0, entry.expected_size or 0,
        entry.version_code, entry.id,
    )  # fmt: skip


def _idle_nodes(session: Session, now: datetime, offline_after_seconds: float) -> list[Node]:
    """Nodes online, valid and in service that serve nothing and are asked for nothing."""
    is_asked = sa.exists().where(NodeAssignment.node_id == Node.id)
    serves = sa.exists().where(
        Replica.node_id == Node.id,
        Replica.state.in_((ReplicaState.READY, ReplicaState.STARTING)),
    )
    return list(
        session.scalars(
            sa.select(Node)
            .where(
                online_condition(now, offline_after_seconds),
                Node.removed_at.is_(None),
                Node.valid_status == ValidStatus.VALID,
                Node.wanted_status.in_((WantedStatus.ACTIVE, WantedStatus.ONLINE)),
                ~is_asked,
                ~serves,
            )
            .order_by(Node.id)
            .limit(BATCH)
        )
    )


def _devices(session: Session, node_ids: list[int]) -> dict[int, list[Device]]:
    found: dict[int, list[Device]] = {}
    for device in session.scalars(sa.select(Device).where(Device.node_id.in_(node_ids))):
        found.setdefault(device.node_id, []).append(device)
    return found


def _take_back(session: Session, *, now: datetime) -> int:
    """End what was chosen here and has left the catalogue since."""
    rows = session.execute(
        sa.select(Node, NodeAssignment.model_name)
        .join(NodeAssignment, NodeAssignment.node_id == Node.id)
        .join(CatalogModel, CatalogModel.id == NodeAssignment.catalog_model_id)
        .where(NodeAssignment.reason == AUTO, CatalogModel.is_active.is_(False))
        .limit(BATCH)
    ).all()
    for node, name in rows:
        desired.unassign_model(session, node, name, now=now)
    return len(rows)
