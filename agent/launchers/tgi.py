"""Text Generation Inference, started by docker and bound to loopback."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.children import Child
from agent.config import TgiOptions
from agent.launchers.base import (
    EngineAddress,
    EngineLoad,
    EngineNotStarted,
    Health,
    ReplicaState,
)
from agent.launchers.face import EngineFace
from agent.logs import LogBuffer, level_of

log = logging.getLogger(__name__)

# TGI drains on SIGTERM: up to 90 s for requests under way, as much again for its shards.
STOP_SECONDS = 180
# Weights of hundreds of GB are downloaded within a start.
START_SECONDS = 6 * 3600.0

_PHASES = (
    (re.compile(r"Starting check and download process"), "looking for the weights"),
    (re.compile(r"Download: (\[\d+/\d+\])"), "downloading the weights"),
    (re.compile(r"Download file"), "downloading the weights"),
    (
        re.compile(r"Successfully downloaded weights|already present on the host"),
        "weights are here",
    ),
    (re.compile(r"Starting shard"), "loading the model"),
    (re.compile(r"Shard ready"), "model loaded"),
    (re.compile(r"Warming up model"), "warming up"),
    (re.compile(r"Connected$"), "almost ready"),
)


class TgiLauncher:
    """One model in one TGI container."""

    kind = "tgi"

    def __init__(
        self,
        model_name: str,
        options: TgiOptions,
        *,
        folder: Path,
        environment: dict[str, str],
        logs: LogBuffer,
        on_change: Callable[[], None],
        is_direct: bool,
        public_url: str | None = None,
        concurrency: int | None = None,
    ) -> None:
        self.model_name = model_name
        self.phase = "starting"
        self._options = options
        self._environment = environment
        self._logs = logs
        self._on_change = on_change
        self._child: Child | None = None
        self._started = 0.0
        self._is_ready = False
        # The same folder and model give the same name: a leftover is found at the next start.
        mark = hashlib.sha256(f"{folder.resolve()}\0{model_name}".encode()).hexdigest()[:12]
        self.container = f"weft-tgi-{mark}"
        self._env_file = folder / f"{self.container}.env"
        logs.redactor.hide(options.hf_token)
        self._face = EngineFace(
            kind=self.kind,
            model_name=model_name,
            public_url=public_url,
            is_direct=is_direct,
            concurrency=concurrency,
        )

    def start(self) -> None:
        """Run the container. Raises EngineNotStarted where there is no docker."""
        docker = self._docker()
        self._remove_leftover(docker)
        key = secrets.token_urlsafe(24)
        self._logs.redactor.hide(key)
        port = self._options.port or _free_port()
        self._write_env_file(key)
        self._face.reset()
        self._face.api_key = key
        self._face.base_url = f"http://127.0.0.1:{port}"
        self._is_ready = False
        self._set_phase("starting the container")
        self._started = time.monotonic()
        self._child = Child(
            self.command(docker, port),
            environment=self._environment,
            on_line=self._on_line,
            on_exit=self._on_change,
            # docker's client passes a SIGTERM on to the container, also when the agent dies hard.
            death_signal=signal.SIGTERM,
        )

    def command(self, docker: str, port: int) -> list[str]:
        """The docker command line. Everything for TGI itself goes by the environment file:
        its entrypoint takes arguments unquoted, and arguments show in `ps`."""
        options = self._options
        gpus = ["--gpus", options.gpus] if options.gpus else []
        return [
            docker, "run", "--rm", "--name", self.container,
            *gpus,
            "--shm-size", options.shm_size,
            "-p", f"127.0.0.1:{port}:80",
            "-v", f"{options.volume}:/data",
            "--env-file", str(self._env_file),
            "--stop-timeout", str(STOP_SECONDS),
            options.image,
        ]  # fmt: skip

    def poll(self) -> Health:
        """How the engine is; a container that ended is a failure, with its last words."""
        child = self._child
        if child is None:
            return Health(ReplicaState.STOPPED)
        if child.exit_code is not None:
            words = " | ".join(list(child.last_lines)[-3:])
            message = f"TGI ended with code {child.exit_code} while {self.phase}: {words}"
            return Health(ReplicaState.FAILED, self._logs.redactor.clean(message)[:500])
        health = self._face.look()
        if health.state is ReplicaState.READY:
            self._is_ready = True
            self._env_file.unlink(missing_ok=True)
        elif health.state is ReplicaState.STARTING:
            if time.monotonic() - self._started > START_SECONDS:
                return Health(ReplicaState.FAILED, f"TGI is still {self.phase} after 6 hours.")
            # Its port opens only when all is done: not answering is no news until then.
            return Health(ReplicaState.STARTING)
        return health

    def stop(self, *, seconds: float) -> None:
        """Let the container drain. What takes longer than `seconds` goes on without the agent."""
        child, self._child = self._child, None
        self._face.base_url = None
        self._env_file.unlink(missing_ok=True)
        if child is None:
            return
        if child.exit_code is not None:
            child.close()
            return
        self._docker_stop(seconds=max(1.0, seconds - 1.0))
        child.stop(seconds=1.0)

    def describe(self, health: Health) -> dict[str, Any]:
        """The replica for the hub."""
        return self._face.describe(health)

    def load(self) -> EngineLoad:
        """How busy the engine is."""
        return self._face.load() if self._is_ready else EngineLoad()

    def address(self) -> EngineAddress | None:
        """Where it listens."""
        return self._face.address()

    def _docker(self) -> str:
        docker = shutil.which("docker", path=self._environment.get("PATH"))
        if docker is None:
            raise EngineNotStarted(
                "TGI is started by docker, and there is no `docker` on PATH. Install docker and "
                "the NVIDIA container toolkit, or start TGI yourself and attach it with "
                "--endpoint URL --model NAME."
            )
        return docker

    def _remove_leftover(self, docker: str) -> None:
        """An agent that was killed may have left its container behind."""
        try:
            subprocess.run(
                [docker, "rm", "--force", self.container],
                env=self._environment,
                capture_output=True,
                timeout=60,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineNotStarted(f"docker doesn't answer: {error}") from error

    def _docker_stop(self, *, seconds: float) -> None:
        """Ask docker to stop it, in a process that may outlive the agent."""
        try:
            stopping = subprocess.Popen(
                [self._docker(), "stop", "--time", str(STOP_SECONDS), self.container],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except (OSError, EngineNotStarted) as error:
            log.warning("Can't stop the container %s: %s", self.container, error)
            return
        try:
            stopping.wait(seconds)
        except subprocess.TimeoutExpired:
            log.warning("%s still drains; docker stops it when it's done.", self.container)
            # It ends on its own; nobody here waits for it any longer.
            stopping.returncode = 0

    def _write_env_file(self, key: str) -> None:
        settings = {
            "MODEL_ID": self.model_name,
            "API_KEY": key,
            "USAGE_STATS": "off",
            "JSON_OUTPUT": "true",
        }
        if self._options.hf_token:
            settings["HF_TOKEN"] = self._options.hf_token
        if any("\n" in value for value in settings.values()):
            raise EngineNotStarted("The model's name or the token has a line break in it.")
        self._env_file.unlink(missing_ok=True)
        descriptor = os.open(self._env_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.writelines(f"{name}={value}\n" for name, value in settings.items())

    def _on_line(self, text: str) -> None:
        level, message = read_line(text)
        for shape, phase in _PHASES:
            found = shape.search(message)
            if found:
                self._set_phase(" ".join((phase, *found.groups())))
                break
        # A running TGI may log generated text; only trouble is shipped then.
        if not self._is_ready or level != "info":
            self._logs.add("engine", self.model_name, level, message)

    def _set_phase(self, phase: str) -> None:
        if phase != self.phase:
            self.phase = phase
            log.info("TGI for %s: %s", self.model_name, phase)
            self._logs.add("engine", self.model_name, "info", f"TGI: {phase}")
            self._on_change()


def read_line(text: str) -> tuple[str, str]:
    """Level and message of a TGI log line: either of its two JSON shapes, or plain text."""
    try:
        entry = json.loads(text)
    except ValueError:
        return level_of(text), text
    if not isinstance(entry, dict):
        return "info", text
    fields = entry.get("fields")
    message = fields.get("message") if isinstance(fields, dict) else entry.get("message")
    level = str(entry.get("level", "info")).lower()
    return {"warn": "warning"}.get(level, level), str(message or text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
