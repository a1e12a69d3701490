"""What the local run refuses to start with, and what it says then."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app.local.checks import (
    FolderLock,
    NotPossible,
    check_socket_path,
    raise_open_files_limit,
    wait_for_port,
)
from tests.fixtures.waiting import eventually


def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    first = FolderLock(tmp_path)

    with pytest.raises(NotPossible, match="already runs"):
        FolderLock(tmp_path)

    first.release()
    FolderLock(tmp_path).release()


def test_a_clean_end_is_told_from_a_kill(tmp_path: Path) -> None:
    code = (
        "import pathlib, signal\n"
        "from app.local.checks import FolderLock\n"
        f"lock = FolderLock(pathlib.Path({str(tmp_path)!r}))\n"
        "print('locked', flush=True)\n"
        "signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    after_a_kill = FolderLock(tmp_path)
    assert after_a_kill.was_killed
    after_a_kill.release()

    after_a_clean_end = FolderLock(tmp_path)
    assert not after_a_clean_end.was_killed
    after_a_clean_end.release()


def test_a_port_in_use_is_named_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        with pytest.raises(NotPossible, match=rf"{port}.*WEFT_PORT={port + 1} make run"):
            wait_for_port("127.0.0.1", port, after_a_kill=False)


def test_a_free_port_is_fine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    wait_for_port("127.0.0.1", port, after_a_kill=False)


def test_a_folder_too_deep_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotPossible, match="WEFT_DATA_DIR"):
        check_socket_path(tmp_path / ("deep" * 30) / "valkey.sock")


def test_many_files_may_be_open() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
        raise_open_files_limit()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert soft == min(hard, 65_536)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_waiting_for_a_port_after_a_kill_ends_when_it_is_free() -> None:
    code = (
        "import socket, sys\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "print(server.getsockname()[1], flush=True)\n"
        "sys.stdin.readline()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        port = int(process.stdout.readline())
        process.stdin.close()

        wait_for_port("127.0.0.1", port, after_a_kill=True)

        eventually(lambda: process.poll() is not None)
