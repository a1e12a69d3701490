"""The CPU, as the one device of a machine without a GPU."""

from __future__ import annotations

from agent.probes.base import Device
from agent.probes.system import System


class CpuProbe:
    """One device of kind `cpu`. Its memory is the machine's."""

    def __init__(self, system: System) -> None:
        self._system = system

    def devices(self) -> list[Device]:
        """The CPU as it is now."""
        load = self._system.load
        return [
            Device(
                index=0,
                name=self._system.cpu_name,
                kind="cpu",
                memory_bytes=self._system.memory_bytes,
                usage_percent=load.cpu_percent if load else None,
                memory_usage_percent=load.memory_percent if load else None,
            )
        ]
