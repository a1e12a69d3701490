"""Programs of ours that read strangers' files: processes with little memory, time and sight."""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

_ROOT = Path(__file__).parents[3]
_PR_SET_PDEATHSIG = 1
# It ends itself in time; this is for one that can't.
_SPARE_SECONDS = 30


def run_confined(
    program: str,
    arguments: Sequence[str],
    *,
    seconds: int,
    folder: Path | None = None,
    source: IO[bytes] | None = None,
    blocks: Iterable[bytes] = (),
) -> bytes:
    """What a program of this package prints; nothing when it was killed or took too long.

    It reads `source`, or `blocks`, as its standard input. Interrupted, this leaves no process
    behind. Under gevent: on the event loop, and not in a thread, where nobody sees it end.
    """
    # It must not see our secrets, nor anything of the folder that we happen to be in.
    environment = {"PYTHONPATH": str(_ROOT), "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-sP", "-m", program, str(os.getpid()), *arguments],
        stdin=subprocess.PIPE if source is None else source, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, env=environment, cwd=folder or _ROOT,
    ) as process:  # fmt: skip
        try:
            if process.stdin is not None:
                _feed(process.stdin, blocks)
            said, _ = process.communicate(timeout=seconds + _SPARE_SECONDS)
        except subprocess.TimeoutExpired:
            return b""
        finally:
            process.kill()
    return said


def _feed(pipe: IO[bytes], blocks: Iterable[bytes]) -> None:
    try:
        for block in blocks:
            pipe.write(block)
    except BrokenPipeError:
        pass  # it has seen enough


def confine(parent: int, *, memory_bytes: int, file_bytes: int, seconds: int) -> None:
    """What such a program calls first: give up what is not needed, and die with its parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    logging.disable(logging.CRITICAL)
    os.nice(10)
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
