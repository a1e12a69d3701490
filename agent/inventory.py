"""What this machine has and can run, in the words of the hub's agent API."""

from __future__ import annotations

import importlib.util
import shutil
import time
from pathlib import Path
from typing import Any

from agent import VERSION
from agent.probes.base import Device, DeviceProbe
from agent.probes.cpu import CpuProbe
from agent.probes.nvidia import NvidiaProbe
from agent.probes.system import System


class Machine:
    """All probes of this machine together."""

    def __init__(self, disk: Path, *, gpus: DeviceProbe | None = None) -> None:
        self.system = System(disk)
        self._gpus = gpus or NvidiaProbe()
        self._cpu = CpuProbe(self.system)

    def devices(self) -> list[Device]:
        """The GPUs; where there are none, the CPU as the one device."""
        return self._gpus.devices() or self._cpu.devices()

    def inventory(self, attached: tuple[str, ...] = ()) -> dict[str, Any]:
        """Everything that stays the same from beat to beat."""
        return {
            **self.system.inventory(),
            "agent_version": VERSION,
            "engines": sorted({*runnable_engines(), *attached}),
            "devices": [device.as_inventory() for device in self.devices()],
        }

    def beat(self) -> dict[str, Any]:
        """The measured part of one heartbeat."""
        load = self.system.sample(now=time.time())
        return {
            "cpu_usage": load.cpu_percent,
            "memory_usage": load.memory_percent,
            "disk_usage": load.disk_percent,
            "network_rx": load.network_received_bytes,
            "network_tx": load.network_sent_bytes,
            "uptime_seconds": load.uptime_seconds,
            "devices": [device.as_heartbeat() for device in self.devices()],
        }


def runnable_engines() -> list[str]:
    """The kinds of engine that this agent can start here."""
    kinds = []
    if importlib.util.find_spec("xllamacpp") is not None:
        kinds.append("llamacpp")
    if shutil.which("docker"):
        kinds.append("tgi")
    return kinds
