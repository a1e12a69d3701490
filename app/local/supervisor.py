"""Starts programs in order, shows what they print, restarts what crashes, stops all.

One thread and one loop: no locks, and children may be forked at any time. Every child has
a process group of its own, so that nothing of it survives it, and asks the kernel to be
told when we die, however hard.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import IO

from app.local.death import die_with_parent

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0  # who ran for so long starts again at the first pause
CRASHES_AT_START = 3
TICK_SECONDS = 0.1
LONGEST_LINE_BYTES = 64 * 1024
LAST_LINES = 20

Show = Callable[[str, str], None]


class StartFailed(Exception):
    """A program did not come up; the message says which and shows its last lines."""


class StopRequested(Exception):
    """Somebody asked us to stop while we were starting."""


@dataclass(frozen=True)
class Program:
    """What to run, how to know that it is up, how long it may take to stop."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    is_ready: Callable[[], bool] = lambda: True
    ready_seconds: float = 60.0
    stop_seconds: float = 4.0


@dataclass
class Child:
    """A program and its present process."""

    program: Program
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_again_at: float | None = None
    crashes: int = 0
    partial: bytes = b""
    last_lines: list[str] = field(default_factory=list)


class Supervisor:
    """Runs programs. Use from the main thread alone; `show(name, line)` prints a line."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._children: list[Child] = []
        self._selector = selectors.DefaultSelector()
        self._signals = 0
        self._catches = False
        self._awake, self._waker = socket.socketpair()

    @property
    def is_stopping(self) -> bool:
        """Whether Ctrl-C, SIGTERM or SIGHUP has come."""
        return self._signals > 0

    def catch_signals(self) -> None:
        """Let Ctrl-C, SIGTERM and SIGHUP stop us, and the end of a child wake us."""
        self._catches = True
        for end in (self._awake, self._waker):
            end.setblocking(False)
        self._selector.register(self._awake, selectors.EVENT_READ)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._count_signal)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def start(self, program: Program) -> None:
        """Start a program and wait until it is ready. Raises StartFailed, StopRequested."""
        child = Child(program)
        self._children.append(child)
        self._spawn(child)
        deadline = time.monotonic() + program.ready_seconds
        while not (child.process is not None and program.is_ready()):
            self.turn(TICK_SECONDS)
            if self.is_stopping:
                raise StopRequested
            if child.crashes >= CRASHES_AT_START or time.monotonic() > deadline:
                raise StartFailed(_why_not(child))

    def run_once(self, program: Program) -> None:
        """Run a program to its successful end. Raises StartFailed, StopRequested."""
        child = Child(program)
        self._spawn(child)
        deadline = time.monotonic() + program.ready_seconds
        while child.process is not None and child.process.poll() is None:
            self.turn(TICK_SECONDS)
            if self.is_stopping or time.monotonic() > deadline:
                self._end(child)
                raise StopRequested if self.is_stopping else StartFailed(_why_not(child))
        code = child.process.returncode if child.process else 1
        self._end(child)
        if code != 0:
            raise StartFailed(_why_not(child))

    def watch(self) -> None:
        """Keep all programs running until somebody asks us to stop."""
        while not self.is_stopping:
            self.turn(1.0)

    def turn(self, timeout: float) -> None:
        """Show what was printed, bury the dead, start again what is due."""
        self._select(min(timeout, self._until_next_start()))
        for child in self._children:
            if child.process is not None and child.process.poll() is not None:
                self._bury(child)
            if child.start_again_at is not None and child.start_again_at <= time.monotonic():
                self._spawn(child)

    def stop(self) -> None:
        """Stop all programs, the last one first; a second Ctrl-C makes it short."""
        signals_before = self._signals
        for child in reversed(self._children):
            child.start_again_at = None
            if child.process is None:
                continue
            with contextlib.suppress(ProcessLookupError):
                child.process.terminate()
            deadline = time.monotonic() + child.program.stop_seconds
            while child.process.poll() is None and time.monotonic() < deadline:
                self._select(TICK_SECONDS)
                if self._signals > max(signals_before, 1):
                    break
            self._end(child)
        self._children.clear()

    def pids(self) -> dict[str, int]:
        """The process id of each running program, by name."""
        return {c.program.name: c.process.pid for c in self._children if c.process is not None}

    def close(self) -> None:
        """Give back what the loop waits with; signals no longer wake it."""
        if self._catches:
            signal.set_wakeup_fd(-1)
            self._catches = False
        self._selector.close()
        self._awake.close()
        self._waker.close()

    def _count_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1

    def _spawn(self, child: Child) -> None:
        child.start_again_at = None
        child.started_at = time.monotonic()
        child.process = subprocess.Popen(
            child.program.argv,
            env=dict(child.program.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent(os.getpid()),
        )
        output = _output(child.process)
        os.set_blocking(output.fileno(), False)
        self._selector.register(output, selectors.EVENT_READ, child)

    def _until_next_start(self) -> float:
        due = [c.start_again_at for c in self._children if c.start_again_at is not None]
        return max(0.0, min(due, default=float("inf")) - time.monotonic())

    def _select(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            if isinstance(key.data, Child):
                self._read(key.data)
            else:
                with contextlib.suppress(BlockingIOError):
                    self._awake.recv(4096)

    def _read(self, child: Child) -> bool:
        """Show the whole lines that a child has printed; False when there is no more now."""
        if child.process is None:
            return False
        output = _output(child.process)
        try:
            piece = os.read(output.fileno(), LONGEST_LINE_BYTES)
        except BlockingIOError:
            return False
        if not piece:
            self._selector.unregister(output)
            return False
        *lines, child.partial = (child.partial + piece).split(b"\n")
        if len(child.partial) > LONGEST_LINE_BYTES:
            lines, child.partial = [*lines, child.partial], b""
        for line in lines:
            self._line(child, line)
        return True

    def _line(self, child: Child, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        child.last_lines.append(text)
        del child.last_lines[:-LAST_LINES]
        self._show(child.program.name, text)

    def _bury(self, child: Child) -> None:
        """Note a crash and when to start again."""
        code = child.process.returncode if child.process is not None else 0
        self._end(child)
        if time.monotonic() - child.started_at > STEADY_SECONDS:
            child.crashes = 0
        pause = min(FIRST_PAUSE_SECONDS * 2**child.crashes, LONGEST_PAUSE_SECONDS)
        child.crashes += 1
        child.start_again_at = time.monotonic() + pause
        self._show(
            child.program.name, f"ended ({_reason(code)}); starting again in {pause:g} s"
        )

    def _end(self, child: Child) -> None:
        """Let nothing of a child's process group live on, and show its last words."""
        process = child.process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        output = _output(process)
        while output in self._selector.get_map() and self._read(child):
            pass
        if output in self._selector.get_map():
            self._selector.unregister(output)
        if child.partial:
            self._line(child, child.partial)
            child.partial = b""
        child.process = None
        output.close()


def _output(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout is not None  # noqa: S101 - it was asked for as a pipe
    return process.stdout


def _reason(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit status {code}"


def _why_not(child: Child) -> str:
    lines = "\n".join(f"  {line}" for line in child.last_lines)
    return f"{child.program.name} did not start. Its last lines:\n{lines}"
