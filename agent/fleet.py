"""All engines of this node: those it was told to run, and those that the hub wants."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.config import BuiltInOptions, Settings
from agent.launchers.attach import AttachLauncher
from agent.launchers.base import EngineAddress, Launcher, ReplicaState
from agent.launchers.llamacpp import LlamaCppLauncher
from agent.launchers.tgi import TgiLauncher
from agent.logs import LogBuffer
from agent.supervisor import Supervisor

log = logging.getLogger(__name__)


class Fleet:
    """The engines by model name. `find_file` says where a wanted model's file lies, if it does."""

    def __init__(
        self,
        settings: Settings,
        *,
        environment: dict[str, str],
        threads: int,
        logs: LogBuffer,
        find_file: Callable[[str, str | None], Path | None],
        on_change: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._environment = environment
        self._threads = threads
        self._logs = logs
        self._find_file = find_file
        self._on_change = on_change
        self._lock = threading.Lock()
        self._own: dict[str, Supervisor] = {}
        self._wanted: dict[str, tuple[str, Supervisor]] = {}
        self._refused: dict[str, dict[str, Any]] = {}
        self._desired: list[dict[str, Any]] = []
        self._is_stopping = False

    @property
    def attached_kinds(self) -> tuple[str, ...]:
        """The kinds of the attached engines, as far as they are known."""
        with self._lock:
            launchers = [supervisor.launcher for supervisor in self._own.values()]
        return tuple(one.kind for one in launchers if isinstance(one, AttachLauncher))

    def start(self) -> None:
        """Start what the settings name."""
        settings = self._settings
        for attachment in settings.attachments:
            wake = threading.Event()
            launcher = AttachLauncher(
                attachment, is_direct=settings.is_direct, concurrency=settings.concurrency
            )
            self._logs.redactor.hide(attachment.api_key)
            self._own[attachment.model_name] = self._supervise(launcher, wake)
        if settings.engine == "llamacpp" and settings.model_name:
            name, public = settings.model_name, settings.public_url
            self._own[name] = self._built_in(name, settings.built_in, public_url=public)
        if settings.engine == "tgi" and settings.model_name:
            self._own[settings.model_name] = self._tgi(settings.model_name)

    def apply_desired(self, models: list[dict[str, Any]]) -> None:
        """Run what the hub wants besides, and end what it no longer wants."""
        self._desired = models
        wanted = {
            str(entry["model_name"]): entry for entry in models if entry.get("model_name")
        }
        with self._lock:
            if self._is_stopping:
                return
            gone = [name for name in self._wanted if name not in wanted]
            ended = [self._wanted.pop(name)[1] for name in gone]
            self._refused = {}
            for name, entry in wanted.items():
                if name not in self._own:
                    ended += self._want(name, entry)
        for supervisor in ended:
            supervisor.stop()
        self._on_change()

    def apply_again(self) -> None:
        """Look again whether a wanted model can run now: its file has come."""
        self.apply_desired(self._desired)

    def replicas(self) -> list[dict[str, Any]]:
        """All replicas, as the hub is told of them."""
        with self._lock:
            supervisors = self._all()
            refused = list(self._refused.values())
        return [supervisor.replica() for supervisor in supervisors] + refused

    def beats(self) -> list[dict[str, Any]]:
        """All replicas' parts of a heartbeat. Asks the engines, so it may take seconds."""
        with self._lock:
            supervisors = self._all()
        return [supervisor.beat() for supervisor in supervisors]

    def find(self, model_name: str) -> EngineAddress | None:
        """Where the engine of a model listens; None where no engine here serves it."""
        with self._lock:
            supervisor = self._own.get(model_name)
            if supervisor is None and model_name in self._wanted:
                supervisor = self._wanted[model_name][1]
        if supervisor is None or supervisor.health.state is not ReplicaState.READY:
            return None
        return supervisor.launcher.address()

    def stop(self, seconds: float) -> None:
        """End all engines, at once, within about `seconds`."""
        with self._lock:
            self._is_stopping = True
            supervisors = self._all()
        for supervisor in supervisors:
            supervisor.stop()
        deadline = time.monotonic() + seconds
        for supervisor in supervisors:
            if not supervisor.join(max(0.1, deadline - time.monotonic())):
                log.warning("%s didn't stop in time.", supervisor.launcher.model_name)

    def _all(self) -> list[Supervisor]:
        return [*self._own.values(), *(pair[1] for pair in self._wanted.values())]

    def _want(self, name: str, entry: dict[str, Any]) -> list[Supervisor]:
        """Start one wanted model; what it takes the place of is returned, to be ended."""
        engine, file = str(entry.get("engine") or ""), entry.get("file")
        if engine != self._settings.engine or engine not in {"llamacpp", "tgi"}:
            self._refuse(name, engine, f"This agent doesn't start {engine or 'that engine'}.")
            return self._drop(name)
        path = self._find_file(name, file) if engine == "llamacpp" else None
        if engine == "llamacpp" and path is None:
            # The download's end brings us here again.
            self._refuse(name, engine, None)
            return self._drop(name)
        if name in self._wanted and self._wanted[name][0] == str(path):
            return []
        replaced = self._drop(name)
        supervisor = (
            self._tgi(name)
            if path is None
            else self._built_in(name, self._options_for(path), public_url=None)
        )
        self._wanted[name] = (str(path), supervisor)
        return replaced

    def _drop(self, name: str) -> list[Supervisor]:
        pair = self._wanted.pop(name, None)
        return [pair[1]] if pair else []

    def _refuse(self, name: str, engine: str, error: str | None) -> None:
        """Report a replica that has no launcher: it waits for its file, or can't run here."""
        self._refused[name] = {
            "model_name": name,
            "served_name": name,
            "engine": engine,
            "state": str(ReplicaState.FAILED if error else ReplicaState.STARTING),
            "endpoint_url": None,
            "concurrency": 1,
            "context_tokens": None,
            "engine_version": None,
            "error": error,
            "api_key": None,
        }

    def _options_for(self, path: Path) -> BuiltInOptions:
        own = self._settings.built_in
        return BuiltInOptions(
            model_file=path,
            threads=own.threads,
            slots=own.slots,
            context_tokens=own.context_tokens,
            gpu_layers=own.gpu_layers,
        )

    def _built_in(
        self, name: str, options: BuiltInOptions, *, public_url: str | None
    ) -> Supervisor:
        wake = threading.Event()
        launcher = LlamaCppLauncher(
            name,
            options,
            environment=self._environment,
            threads=options.threads or self._threads,
            logs=self._logs,
            on_change=wake.set,
            is_direct=self._settings.is_direct,
            public_url=public_url,
            concurrency=self._settings.concurrency,
        )
        return self._supervise(launcher, wake)

    def _tgi(self, name: str) -> Supervisor:
        wake = threading.Event()
        launcher = TgiLauncher(
            name,
            self._settings.tgi,
            folder=self._settings.state_dir,
            environment=self._environment,
            logs=self._logs,
            on_change=wake.set,
            is_direct=self._settings.is_direct,
            public_url=self._settings.public_url,
            concurrency=self._settings.concurrency,
        )
        return self._supervise(launcher, wake)

    def _supervise(self, launcher: Launcher, wake: threading.Event) -> Supervisor:
        supervisor = Supervisor(launcher, wake=wake, on_change=self._on_change)
        supervisor.start()
        return supervisor
