"""Waiting for something to become true, with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_pause = threading.Event()


def eventually(find: Callable[[], T], *, seconds: float = 60.0, what: str = "it") -> T:
    """The first true answer of `find`."""
    deadline = time.monotonic() + seconds
    while True:
        found = find()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} didn't happen in {seconds} s"
        _pause.wait(0.02)
