"""The agent API's words as the domain's, and back."""

from __future__ import annotations

from dataclasses import asdict

from app.blueprints.agent_api import schemas
from app.core.domain.nodes import DeviceInfo, Inventory, ReplicaReport, ReplicaState
from app.core.services.desired import Desired


def inventory_of(entry: schemas.InventoryEntry) -> Inventory:
    """An inventory as the domain keeps it."""
    return Inventory(
        devices=tuple(DeviceInfo(**device.model_dump()) for device in entry.devices),
        cpu_name=entry.cpu_name,
        physical_cores=entry.cpu_physical_cores,
        memory_bytes=entry.memory_bytes,
        facts=entry.model_dump(exclude={"devices"}),
    )


def replica_of(entry: schemas.ReplicaEntry) -> ReplicaReport:
    """A replica as the domain knows it; unnamed upstream means named alike."""
    values = entry.model_dump()
    values["served_name"] = entry.served_name or entry.model_name
    values["state"] = ReplicaState(entry.state)
    return ReplicaReport(**values)


def desired_of(wanted: Desired) -> schemas.DesiredState:
    """The desired state as agents read it."""
    return schemas.DesiredState.model_validate(asdict(wanted))
