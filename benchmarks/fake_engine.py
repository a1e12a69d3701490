"""The fake engine as a process: starts it, asks it what it saw, ends it."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from benchmarks import native_tools, processes
from benchmarks.processes import Service

MODELS = ("bench-0ms", "bench-10ms", "bench-50ms", "bench-100ms")


@dataclass
class FakeEngine:
    """A running fake engine; every model in MODELS answers at the pace of its name."""

    base_url: str
    service: Service

    def stats(self) -> dict[str, int]:
        """What it has seen: requests, active and peak streams, cancelled streams, tokens."""
        with urllib.request.urlopen(f"{self.base_url}/stats", timeout=5) as reply:  # noqa: S310 - our own http address
            return dict(json.load(reply))

    def stop(self) -> None:
        """End it."""
        self.service.stop()


def start(log_path: Path, port: int = 0) -> FakeEngine:
    """Start it on a port of 127.0.0.1 (0: any free one). Raises NoCompilerError, NotReadyError."""
    service = processes.start([str(native_tools.tool("fake_engine")), str(port)], log_path)
    service.wait_until(lambda: service.log_tail().startswith("port "), 5.0)
    port = int(service.log_tail().split()[1])
    return FakeEngine(f"http://127.0.0.1:{port}", service)
