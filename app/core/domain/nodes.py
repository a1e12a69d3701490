"""A node as it describes itself, and what follows from its beats."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

ENGINE_KINDS = ("tgi", "vllm", "sglang", "llamacpp", "ollama", "openai")


class WantedStatus(StrEnum):
    """What the owner asked for."""

    ACTIVE = "active"
    ONLINE = "online"
    OFFLINE = "offline"
    MAINTENANCE = "maintenance"
    ERROR = "error"


class ValidStatus(StrEnum):
    """What an admin thinks of a node."""

    VALID = "valid"
    INVALID = "invalid"
    WARNING = "warning"


class ReplicaState(StrEnum):
    """How far a node has got with serving a model."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A device as its node's inventory lists it. Absent is None, never 0."""

    index: int
    name: str
    kind: str = "gpu"
    uuid: str | None = None
    pci_bus_id: str | None = None
    vendor_id: int | None = None
    device_id: int | None = None
    memory_bytes: int | None = None
    power_limit_watts: float | None = None
    driver: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a machine has. `facts` holds the rest of it as plain JSON."""

    devices: tuple[DeviceInfo, ...]
    cpu_name: str = ""
    physical_cores: int | None = None
    memory_bytes: int | None = None
    facts: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """A model that a node says it serves."""

    model_name: str
    served_name: str
    engine: str
    state: ReplicaState
    endpoint_url: str | None = None
    concurrency: int = 1
    context_tokens: int | None = None
    engine_version: str | None = None
    error: str | None = None
    api_key: str | None = None


@dataclass(frozen=True, slots=True)
class ReplicaVerdict:
    """Whether the hub takes a reported replica, and why not."""

    model_name: str
    accepted: bool
    reason: str | None = None


# Plain strings: hashing an enum's member takes ten times as long, and lists are long.
_SHOWN_AS_WANTED = frozenset({"maintenance", "error"})
_IN_SERVICE = frozenset({"active", "online"})


def is_online(
    last_beat_at: datetime | None,
    stopped_at: datetime | None,
    *,
    now: datetime,
    offline_after_seconds: float,
) -> bool:
    """Whether a node beat lately and has not said goodbye since."""
    if last_beat_at is None or (stopped_at is not None and stopped_at >= last_beat_at):
        return False
    return last_beat_at > now - timedelta(seconds=offline_after_seconds)


def status_of(wanted: str, *, online: bool) -> str:
    """What a node is called: offline without beats, else what its owner asked for."""
    if not online:
        return "offline"
    return wanted if wanted in _SHOWN_AS_WANTED else "online"


def is_draining(wanted: str) -> bool:
    """Whether a node gets no new runs because its owner said so."""
    return wanted not in _IN_SERVICE


def clean_text(text: str, limit: int) -> str:
    """A name as it may be shown: printable, one line, bounded."""
    shown = "".join(" " if char.isspace() else char for char in text)
    printable = "".join(char for char in shown if char.isprintable())
    return " ".join(printable.split())[:limit].strip()
