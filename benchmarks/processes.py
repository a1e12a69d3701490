"""Starting, waiting for and ending the processes that a benchmark measures."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

STOP_SECONDS = 10.0


class NotReadyError(RuntimeError):
    """A process ended, or did not answer in time; the message holds the end of its log."""


@dataclass
class Service:
    """One process of ours, in a process group of its own, with its log in a file."""

    process: subprocess.Popen[bytes]
    log_path: Path
    log_file: IO[bytes]

    @property
    def pid(self) -> int:
        """The root of this service's process tree."""
        return self.process.pid

    def log_tail(self, characters: int = 2000) -> str:
        """The end of what the process printed."""
        return self.log_path.read_text(errors="replace")[-characters:]

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait for a condition; raises NotReadyError when the process ends or time is up."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            if ready():
                return
            time.sleep(0.1)
        raise NotReadyError(f"{self.process.args!r} is not ready:\n{self.log_tail()}")

    def stop(self) -> None:
        """End the process and its children: politely, then by force."""
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        self._signal(signal.SIGKILL)
        self.process.wait()
        self.log_file.close()

    def pause(self) -> None:
        """Freeze the whole group, so that it takes nothing from what is measured now."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen group go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def start(
    command: Sequence[str],
    log_path: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Service:
    """Start a process in its own group; `env` is added to this process's environment."""
    log_path.parent.mkdir(parents=True, exist_ok=True)
    log_file = log_path.open("wb")
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log_file,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        start_new_session=True,
    )
    return Service(process, log_path, log_file)


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    """Whether a GET of the URL is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:  # noqa: S310 - our own http address
            return bool(reply.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def body_of(url: str) -> str:
    """What a GET is answered with, also when that is an error; why not, without an answer."""
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:  # noqa: S310 - our own http address
            return str(reply.read().decode())
    except urllib.error.HTTPError as error:
        return error.read().decode(errors="replace")
    except OSError as error:
        return str(error)


@dataclass
class Stack:
    """A gateway under test: where it answers, and which processes are its own.

    `pids_by_role` names the roots of its process trees; the trees must not overlap.
    `torbiz_header` is a whole header line for /inference/stream/, or empty without that API.
    """

    name: str
    base_url: str
    api_key: str = ""
    pids_by_role: dict[str, list[int]] = field(default_factory=dict)
    services: list[Service] = field(default_factory=list)
    torbiz_header: str = ""
    on_stop: Callable[[], None] | None = None
    can_pause: bool = False

    def pause(self) -> None:
        """Freeze it while others are measured, if it bears that."""
        for service in self.services if self.can_pause else []:
            service.pause()

    def resume(self) -> None:
        """Let it go on before it is measured itself."""
        for service in self.services if self.can_pause else []:
            service.resume()

    def stop(self) -> None:
        """End all of its processes and remove what it left behind."""
        for service in reversed(self.services):
            service.stop()
        if self.on_stop is not None:
            self.on_stop()
