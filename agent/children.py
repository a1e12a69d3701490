"""Engine processes that never outlive the agent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
_LINE_BYTES = 8192
_LAST_LINES = 12


class Child:
    """One started program, its output read line by line.

    It dies with the agent even when the agent is killed hard: on Linux the kernel sends it
    `death_signal`, and its standard input, which it may watch, ends. The kernel sends
    that signal when the *thread* that started the child ends, so start it from one that stays.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        first_input: bytes = b"",
        on_line: Callable[[str], None],
        on_exit: Callable[[], None],
        death_signal: signal.Signals = signal.SIGKILL,
        folder: Path | None = None,
    ) -> None:
        self._on_line = on_line
        self._on_exit = on_exit
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._process = subprocess.Popen(  # noqa: S603 - the launchers make the command
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            # Ctrl-C in the terminal is for the agent, which then stops its engines in order.
            start_new_session=True,
            preexec_fn=_dying_with_parent(death_signal),
        )
        self.pid = self._process.pid
        with contextlib.suppress(OSError):
            self._input.write(first_input)
            self._input.flush()
        self._reader = threading.Thread(
            target=self._read, name=f"engine-{self.pid}", daemon=True
        )
        self._reader.start()

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def stop(self, *, seconds: float) -> None:
        """End it: politely first, hard after `seconds`."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self._process.wait()
        self.close()

    def close(self) -> None:
        """Let go of the pipes of a program that has ended."""
        with contextlib.suppress(OSError):
            self._input.close()
        self._reader.join(2.0)
        if not self._reader.is_alive() and self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def _input(self) -> IO[bytes]:
        assert self._process.stdin is not None  # noqa: S101 - asked for above
        return self._process.stdin

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _read(self) -> None:
        output = self._process.stdout
        assert output is not None  # noqa: S101 - asked for above
        while line := output.readline(_LINE_BYTES):
            text = line.decode("utf-8", "replace").rstrip()
            if text:
                self.last_lines.append(text)
                self._on_line(text)
        self._process.wait()
        self._on_exit()


def _dying_with_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    """What the new process does before it becomes the program. None where there's no prctl."""
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return None
    parent = os.getpid()
    number = int(death_signal)

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # the agent died before the line above
            os._exit(1)

    return prepare
