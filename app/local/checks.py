"""What must hold before anything starts: the folder is ours, the port is free."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import time
from pathlib import Path

WANTED_OPEN_FILES = 65_536
LEFTOVER_SECONDS = 35.0
LONGEST_SOCKET_PATH = 107  # bytes that the kernel allows


class NotPossible(Exception):
    """Weft can't start here; the message says why and what to do."""


class FolderLock:
    """Keeps two local runs from sharing one data folder. Held until the process ends."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "running.lock"
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = self._path.read_text().strip()
            os.close(self._descriptor)
            raise NotPossible(
                f"Weft already runs on {folder} (process {owner}). Stop that one, or give this "
                "one a folder and a port of its own: WEFT_DATA_DIR=… WEFT_PORT=… make run"
            ) from None
        self.was_killed = bool(self._path.read_text().strip())
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Say that this run ended as it should."""
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def wait_for_port(host: str, port: int, *, after_a_kill: bool) -> None:
    """Make sure that the port can be bound. Raises NotPossible.

    After a run that was killed hard, its web server may still be finishing answers.
    """
    deadline = time.monotonic() + (LEFTOVER_SECONDS if after_a_kill else 0)
    while problem := _bind_problem(host, port):
        if time.monotonic() >= deadline:
            raise NotPossible(
                f"{host}:{port} can't be used: {problem}. Stop the program that uses it, or "
                f"choose another port: WEFT_PORT={port + 1} make run"
            )
        time.sleep(0.2)


def _bind_problem(host: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


def check_socket_path(path: Path) -> None:
    """A Unix socket's path is short. Raises NotPossible."""
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise NotPossible(
            f"The data folder's path is too long for a socket in it ({path}). "
            "Choose a shorter one: WEFT_DATA_DIR=~/weft make run"
        )


def raise_open_files_limit() -> None:
    """Thousands of open streams are thousands of files: allow as many as we may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = (
        WANTED_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, WANTED_OPEN_FILES)
    )
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
