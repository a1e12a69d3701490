"""`make run` as its user meets it: the whole network in processes of its own."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.fixtures.local_run import LocalRun
from tests.fixtures.ports import free_port
from tests.fixtures.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("local run")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[LocalRun]:
    run = LocalRun(folder, free_port())
    try:
        run.wait_for_welcome()
        yield run
    finally:
        run.end()


def chat(run: LocalRun) -> list[str]:
    """The events of the stream that the printed curl line asks for."""
    line = run.output.split("curl -N", 1)[1]
    found = re.search(r"-d '(.*)'", line)
    assert found
    request = urllib.request.Request(
        f"{run.url}/v1/chat/completions",
        data=found[1].encode(),
        headers={"Authorization": f"Bearer {run.api_key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


def test_the_printed_line_streams_an_answer(running: LocalRun) -> None:
    *chunks, last = chat(running)

    words = [
        choice["delta"].get("content") or ""
        for chunk in chunks
        for choice in json.loads(chunk).get("choices", [])
    ]
    assert last == "[DONE]"
    assert "".join(words).strip()
    assert len(words) > 1


@pytest.mark.parametrize("words", ["gunicorn", "-m worker", "valkey", "-m agent"])
def test_a_killed_program_comes_back_and_answers(running: LocalRun, words: str) -> None:
    before = running.program(words)
    before.kill()

    eventually(lambda: running.program(words).pid != before.pid, timeout=60)

    eventually(lambda: running.answers("/readyz"), timeout=60)
    eventually(lambda: chat_works(running), timeout=120)


def chat_works(run: LocalRun) -> bool:
    try:
        return chat(run)[-1:] == ["[DONE]"]
    except OSError:
        return False


def test_a_second_supervisor_is_refused(running: LocalRun, folder: Path) -> None:
    second = LocalRun(folder, free_port())

    assert second.process.wait(timeout=60) == 1
    eventually(lambda: "already runs" in second.output)


def test_a_port_in_use_is_said_plainly(running: LocalRun, tmp_path: Path) -> None:
    second = LocalRun(tmp_path, running.port)

    assert second.process.wait(timeout=60) == 1
    eventually(lambda: f"WEFT_PORT={running.port + 1} make run" in second.output)


def left_of(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run."""

    def runs(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:  # it ended between the two questions
            return False

    return [process for process in processes if runs(process)]


def test_stopping_leaves_nothing_and_the_next_start_keeps_the_data(
    running: LocalRun, folder: Path
) -> None:
    key = running.api_key
    processes = running.all_processes()
    assert processes

    assert running.stop(signal.SIGINT) == 0
    assert left_of(processes) == []

    again = LocalRun(folder, running.port)
    try:
        again.wait_for_welcome()
        assert again.api_key == key
        assert chat_works(again)
        children = again.all_processes()
    finally:
        again.process.kill()
        again.process.wait()
    eventually(
        lambda: left_of(children) == [], what="a killed supervisor takes everything with it"
    )
