"""What a node has: its devices, as rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

import msgspec
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.nodes import DeviceInfo, Inventory, clean_text
from app.core.models import Device, Node
from app.core.services.device_types import DeviceTable, Rating, load_table, rate_cpu
from app.core.services.id_lists import listed

_MAX_NAME = 128


class DeviceView(msgspec.Struct, frozen=True, gc=False):
    """A device as lists show it."""

    index: int
    kind: str
    name: str
    vendor_id: int | None
    device_id: int | None
    memory_bytes: int | None
    power_limit_watts: float | None
    physical_cores: int | None
    tflops: float | None


_DEVICES = Device.__table__.c
_LIST_DEVICES = (
    sa.select(_DEVICES.node_id, *(_DEVICES[name] for name in DeviceView.__struct_fields__))
    .where(listed(_DEVICES.node_id))
    .order_by(_DEVICES.index)
)


def update_inventory(
    session: Session, node: Node, inventory: Inventory, *, now: datetime
) -> None:
    """Replace the node's devices by those of the inventory. A machine without any is a CPU."""
    devices = inventory.devices or (
        DeviceInfo(0, inventory.cpu_name or "CPU", kind="cpu", memory_bytes=None),
    )
    known = {d.index: d for d in session.scalars(_devices_of(node.id))}
    table = load_table(session)
    for info in devices:
        row = known.pop(info.index, None)
        if row is None:
            row = Device(node_id=node.id, index=info.index)
            session.add(row)
        _fill(row, info, inventory, table, now)
    for gone in known.values():
        session.delete(gone)
    facts = dict(inventory.facts or {})
    facts["devices"] = [asdict(info) for info in devices]
    node.inventory = facts
    session.flush()


def list_devices(session: Session, node_ids: Sequence[int]) -> dict[int, list[DeviceView]]:
    """The devices of these nodes, by node, in order of their index."""
    found: dict[int, list[DeviceView]] = {}
    rows = session.connection().execute(_LIST_DEVICES, {"ids": node_ids}).all()
    for node_id, *values in rows:
        found.setdefault(node_id, []).append(DeviceView(*values))
    return found


def _devices_of(node_id: int) -> sa.Select[Device]:
    return sa.select(Device).where(Device.node_id == node_id)


def _fill(
    row: Device, info: DeviceInfo, inventory: Inventory, table: DeviceTable, now: datetime
) -> None:
    rating = _rate(info, inventory, table)
    row.kind = info.kind
    row.name = clean_text(info.name, _MAX_NAME)
    row.uuid = info.uuid
    row.vendor_id = info.vendor_id
    row.device_id = info.device_id
    row.memory_bytes = info.memory_bytes
    row.power_limit_watts = info.power_limit_watts
    row.physical_cores = inventory.physical_cores if info.kind == "cpu" else None
    row.tflops = rating.tflops
    row.updated_at = now


def _rate(info: DeviceInfo, inventory: Inventory, table: DeviceTable) -> Rating:
    if info.kind == "cpu":
        return rate_cpu(inventory.physical_cores)
    return table.rate(info.vendor_id, info.device_id, info.name)
