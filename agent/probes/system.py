"""The machine itself: CPU, memory, disk, network."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

# Kernel counters of 32 bits wrap; a difference below zero is that, or a reset.
_WRAP = 2**32


@dataclass(frozen=True, slots=True)
class Load:
    """How busy the machine is; the network counts are bytes since the look before."""

    cpu_percent: float
    memory_percent: float
    disk_percent: float | None
    network_received_bytes: int
    network_sent_bytes: int
    uptime_seconds: int


class System:
    """Reads the machine. `sample()` moves the network counters on; call it once per beat."""

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        self._before: dict[str, tuple[int, int]] = {}
        self.load: Load | None = None
        self.cpu_name = _cpu_name()
        self.memory_bytes = psutil.virtual_memory().total
        psutil.cpu_percent()  # the first call only starts the measurement
        self._before = _counters()

    def sample(self, *, now: float) -> Load:
        """The load now (`now` = unix seconds, for the uptime)."""
        received, sent = self._network()
        try:
            disk: float | None = psutil.disk_usage(str(self._disk)).percent
        except OSError:
            disk = None
        self.load = Load(
            cpu_percent=psutil.cpu_percent(),
            memory_percent=psutil.virtual_memory().percent,
            disk_percent=disk,
            network_received_bytes=received,
            network_sent_bytes=sent,
            uptime_seconds=max(0, int(now - psutil.boot_time())),
        )
        return self.load

    def inventory(self) -> dict[str, Any]:
        """What the machine is."""
        frequency = _frequency()
        return {
            "cpu_name": self.cpu_name,
            "cpu_physical_cores": psutil.cpu_count(logical=False) or psutil.cpu_count() or 1,
            "cpu_logical_cores": psutil.cpu_count() or 1,
            "cpu_frequency_mhz": frequency,
            "memory_bytes": self.memory_bytes,
            "swap_bytes": psutil.swap_memory().total,
            "disk_bytes": _disk_total(self._disk),
            "os_name": platform.system(),
            "os_version": _os_version(),
        }

    def _network(self) -> tuple[int, int]:
        """Bytes received and sent since the call before, over all but the loopback."""
        after = _counters()
        received = sent = 0
        for name, (now_received, now_sent) in after.items():
            if name not in self._before:
                # New since then (a VPN, a container bridge): all it counted is ours.
                received += now_received
                sent += now_sent
                continue
            then_received, then_sent = self._before[name]
            received += counter_step(then_received, now_received)
            sent += counter_step(then_sent, now_sent)
        self._before = after
        return received, sent


def counter_step(before: int, after: int) -> int:
    """How far a counter moved. A 32-bit one that wrapped goes on; a reset one starts at 0."""
    if after >= before:
        return after - before
    if before < _WRAP and before - after > _WRAP // 2:
        return after + _WRAP - before
    return after


def _counters() -> dict[str, tuple[int, int]]:
    counters = psutil.net_io_counters(pernic=True, nowrap=False)
    return {
        name: (counter.bytes_recv, counter.bytes_sent)
        for name, counter in counters.items()
        if not name.startswith(("lo", "veth", "docker", "br-"))
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "CPU"


def _frequency() -> float | None:
    try:
        frequency = psutil.cpu_freq()
    except (OSError, NotImplementedError, RuntimeError):
        return None
    if frequency is None:
        return None
    return round(frequency.max or frequency.current, 1) or None


def _disk_total(folder: Path) -> int | None:
    try:
        return psutil.disk_usage(str(folder)).total
    except OSError:
        return None


def _os_version() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME") or platform.release()
    except OSError:
        return platform.release()
