"""Keeps one engine up: starts it, watches it, starts it again after it failed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from agent.backoff import Backoff
from agent.launchers.base import EngineNotStarted, Health, Launcher, ReplicaState

log = logging.getLogger(__name__)

STARTING_POLL_SECONDS = 2.0
READY_POLL_SECONDS = 30.0
STEADY_SECONDS = 120.0
STOP_SECONDS = 6.0


class Supervisor:
    """One launcher and the thread that drives it. `wake` is set by the launcher's own events."""

    def __init__(
        self,
        launcher: Launcher,
        *,
        wake: threading.Event,
        on_change: Callable[[], None],
        first_retry_seconds: float = 1.0,
    ) -> None:
        self.launcher = launcher
        self._wake = wake
        self._on_change = on_change
        self._backoff = Backoff(first=first_retry_seconds, cap=60.0)
        self._stopping = threading.Event()
        self._health = Health(ReplicaState.STARTING)
        self._thread = threading.Thread(
            target=self._run, name=f"supervisor-{launcher.model_name}", daemon=True
        )

    @property
    def health(self) -> Health:
        """How the engine was at the last look."""
        return self._health

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to bring the engine down; `join` waits for that."""
        self._stopping.set()
        self._wake.set()

    def join(self, seconds: float) -> bool:
        """Wait until the engine is down. False if it still isn't after `seconds`."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def replica(self) -> dict[str, Any]:
        """The replica for the hub."""
        return self.launcher.describe(self._health)

    def beat(self) -> dict[str, Any]:
        """The replica's part of a heartbeat."""
        load = self.launcher.load()
        return {
            "model_name": self.launcher.model_name,
            "state": str(self._health.state),
            "running": load.running,
            "waiting": load.waiting,
        }

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.launcher.start()
            except (EngineNotStarted, OSError) as error:
                self._set(Health(ReplicaState.FAILED, str(error)))
            else:
                self._watch()
            if self._health.state is ReplicaState.FAILED and not self._stopping.is_set():
                self.launcher.stop(seconds=STOP_SECONDS)
                self._stopping.wait(self._backoff.next())
        self.launcher.stop(seconds=STOP_SECONDS)
        self._set(Health(ReplicaState.STOPPED))

    def _watch(self) -> None:
        """Look at the engine until it fails or the agent stops."""
        ready_since: float | None = None
        while not self._stopping.is_set():
            self._wake.clear()
            health = self.launcher.poll()
            self._set(health)
            if health.state is ReplicaState.FAILED:
                return
            if health.state is ReplicaState.READY:
                ready_since = ready_since or time.monotonic()
                if time.monotonic() - ready_since > STEADY_SECONDS:
                    self._backoff.reset()
            else:
                ready_since = None
            # A ready engine that missed a look gets the next one soon.
            is_steady = health.state is ReplicaState.READY and health.error is None
            self._wake.wait(READY_POLL_SECONDS if is_steady else STARTING_POLL_SECONDS)

    def _set(self, health: Health) -> None:
        before, self._health = self._health, health
        if before == health:
            return
        model = self.launcher.model_name
        if health.state is ReplicaState.FAILED:
            log.warning("%s failed: %s", model, health.error)
        elif before.state is not health.state:
            log.info("%s is %s", model, health.state)
        self._on_change()
