"""A whole Weft for measuring: embedded Valkey, database, web, worker, one node."""

from __future__ import annotations

from benchmarks.processes import Stack


class NotBuiltError(RuntimeError):
    """This checkout cannot run a whole hub yet."""


def start(
    engine_url: str, models: tuple[str, ...], *, web_workers: int = 1, database: str = "sqlite"
) -> Stack:
    """Start a hub in a temporary folder, with one node whose replicas are the fake engine's."""
    raise NotBuiltError("the hub's commands are not there yet")
