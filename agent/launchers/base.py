"""What every launcher offers, and what it tells of its replica."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol


class ReplicaState(StrEnum):
    """The states that the hub knows."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Health:
    """How an engine is, and what is wrong where something is."""

    state: ReplicaState
    error: str | None = None


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What an engine says of itself; None where it doesn't tell."""

    served_name: str
    concurrency: int
    context_tokens: int | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """Requests under way and waiting; None where the engine doesn't count."""

    running: int | None = None
    waiting: int | None = None


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """Where an engine listens, as seen from this machine, and its key."""

    base_url: str
    api_key: str | None = None


class EngineNotStarted(Exception):
    """The engine can't be started here; the message says why and what would help."""


class Launcher(Protocol):
    """One model on one engine. Its supervisor calls all of it from one thread, but for
    `describe`, `load` and `address`, which any thread may ask."""

    model_name: str

    @property
    def kind(self) -> str:
        """The kind of engine."""
        ...

    def start(self) -> None:
        """Bring the engine up, without waiting for it. Raises EngineNotStarted."""
        ...

    def poll(self) -> Health:
        """Look how the engine is. May ask it over HTTP, for a few seconds at most."""
        ...

    def stop(self, *, seconds: float) -> None:
        """Bring down what `start` brought up, within about `seconds`."""
        ...

    def describe(self, health: Health) -> dict[str, Any]:
        """The replica as the hub is told of it."""
        ...

    def load(self) -> EngineLoad:
        """Ask the engine how busy it is."""
        ...

    def address(self) -> EngineAddress | None:
        """Where the relay sends requests; None while there is no such place."""
        ...
