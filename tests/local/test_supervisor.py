"""The supervisor of the local run, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from app.local.supervisor import Program, StartFailed, StopRequested, Supervisor
from tests.fixtures.waiting import eventually

RUNS = "print('up', flush=True)\nimport signal\nwhile True: signal.pause()"
LEAVES_A_CHILD = (
    "import subprocess, sys, signal\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
    "print(child.pid, flush=True)\n"
    "while True: signal.pause()"
)


def python(name: str, code: str, *, ready: Callable[[], bool] = lambda: True) -> Program:
    return Program(
        name, (sys.executable, "-c", code), dict(os.environ), ready, ready_seconds=30
    )


@pytest.fixture
def shown() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def supervisor(shown: list[tuple[str, str]]) -> Iterator[Supervisor]:
    made = Supervisor(lambda name, line: shown.append((name, line)))
    yield made
    made.stop()
    made.close()


def watched_until(supervisor: Supervisor, condition: Callable[[], bool]) -> None:
    """Let the supervisor's loop turn until `condition` holds."""

    def turn() -> bool:
        supervisor.turn(0.05)
        return condition()

    eventually(turn)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_program_starts_only_when_the_one_before_is_ready(
    supervisor: Supervisor, shown: list[tuple[str, str]], tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    first = f"import pathlib; pathlib.Path({str(mark)!r}).touch()\n{RUNS}"
    second = f"import pathlib; print(pathlib.Path({str(mark)!r}).exists(), flush=True)\n{RUNS}"

    supervisor.start(python("first", first, ready=mark.exists))
    supervisor.start(python("second", second, ready=lambda: ("second", "up") in shown))

    assert ("second", "True") in shown


def test_a_killed_program_comes_back(
    supervisor: Supervisor, shown: list[tuple[str, str]]
) -> None:
    supervisor.start(python("web", RUNS, ready=lambda: ("web", "up") in shown))
    before = supervisor.pids()["web"]

    os.kill(before, signal.SIGKILL)
    watched_until(supervisor, lambda: shown.count(("web", "up")) == 2)

    assert supervisor.pids()["web"] != before
    assert any("signal 9" in line for _, line in shown)


def test_a_program_that_keeps_crashing_at_start_is_reported_with_its_last_words(
    supervisor: Supervisor,
) -> None:
    broken = python("web", "raise SystemExit('the reason')", ready=lambda: False)

    with pytest.raises(StartFailed, match="the reason"):
        supervisor.start(broken)


def test_a_failed_step_stops_the_start(supervisor: Supervisor) -> None:
    with pytest.raises(StartFailed, match="no such table"):
        supervisor.run_once(python("setup", "raise SystemExit('no such table')"))


def test_what_a_step_prints_is_shown(
    supervisor: Supervisor, shown: list[tuple[str, str]]
) -> None:
    supervisor.run_once(python("setup", "print('one\\ntwo\\nthree', end='')"))

    assert shown == [("setup", "one"), ("setup", "two"), ("setup", "three")]


def test_programs_stop_in_reverse_order(
    supervisor: Supervisor, shown: list[tuple[str, str]]
) -> None:
    # Not by print: the signal may come while the program is printing.
    says_goodbye = (
        "import os, signal\n"
        "signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b'bye\\n'), os._exit(0)))\n"
        + RUNS
    )
    for name in ("redis", "worker", "web"):
        supervisor.start(
            python(name, says_goodbye, ready=lambda name=name: (name, "up") in shown)
        )

    supervisor.stop()

    assert [name for name, line in shown if line == "bye"] == ["web", "worker", "redis"]


def test_stopping_leaves_no_grandchild(
    supervisor: Supervisor, shown: list[tuple[str, str]]
) -> None:
    supervisor.start(python("agent", LEAVES_A_CHILD, ready=lambda: bool(shown)))
    grandchild = int(shown[0][1])
    assert not is_gone(grandchild)

    supervisor.stop()

    eventually(lambda: is_gone(grandchild))


def test_a_program_that_ignores_the_request_is_killed(
    supervisor: Supervisor, shown: list[tuple[str, str]]
) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + RUNS
    program = Program(
        "deaf",
        (sys.executable, "-c", deaf),
        dict(os.environ),
        lambda: ("deaf", "up") in shown,
        stop_seconds=0.2,
    )
    supervisor.start(program)
    pid = supervisor.pids()["deaf"]

    supervisor.stop()

    assert is_gone(pid)


def test_ctrl_c_while_starting_stops_the_start(supervisor: Supervisor) -> None:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    supervisor.catch_signals()
    interrupt = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    try:
        with pytest.raises(StopRequested):
            supervisor.start(python("slow", RUNS, ready=lambda: False))
    finally:
        interrupt.join()
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


def test_a_killed_supervisor_takes_its_programs_with_it(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from app.local.supervisor import Program, Supervisor\n"
        "supervisor = Supervisor(lambda name, line: print(line, flush=True))\n"
        "child = 'import os, signal; print(os.getpid(), flush=True); signal.pause()'\n"
        "supervisor.start(Program('child', (sys.executable, '-c', child), dict(os.environ)))\n"
        "supervisor.watch()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.kill()

    eventually(lambda: is_gone(child))
