"""What every device probe offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU, or the CPU of a machine without one. None means that nobody could tell."""

    index: int
    name: str
    kind: str
    uuid: str | None = None
    pci_bus_id: str | None = None
    vendor_id: int | None = None
    device_id: int | None = None
    memory_bytes: int | None = None
    power_limit_watts: float | None = None
    driver: str | None = None
    usage_percent: float | None = None
    memory_usage_percent: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    error: str | None = None

    def as_inventory(self) -> dict[str, Any]:
        """What stays the same between heartbeats."""
        return {
            "index": self.index,
            "name": self.name,
            "kind": self.kind,
            "uuid": self.uuid,
            "pci_bus_id": self.pci_bus_id,
            "vendor_id": self.vendor_id,
            "device_id": self.device_id,
            "memory_bytes": self.memory_bytes,
            "power_limit_watts": self.power_limit_watts,
            "driver": self.driver,
            "error": self.error,
        }

    def as_heartbeat(self) -> dict[str, Any]:
        """What one heartbeat tells of it: %, °C, W and GB (2^30 bytes, as cards are sold)."""
        gigabytes = None if self.memory_bytes is None else round(self.memory_bytes / 2**30, 2)
        return {
            "index": self.index,
            "name": self.name,
            "vendor_id": self.vendor_id,
            "device_id": self.device_id,
            "memory_gb": gigabytes,
            "usage": self.usage_percent,
            "mem_usage": self.memory_usage_percent,
            "temp": self.temperature_celsius,
            "power_usage": self.power_watts,
            "power_limit_w": self.power_limit_watts,
            "error": self.error,
        }


class DeviceProbe(Protocol):
    """Finds devices of one kind."""

    def devices(self) -> list[Device]:
        """The devices as they are now; empty where there are none. Never raises."""
        ...
