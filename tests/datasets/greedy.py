"""A confined program that tries what it may not. Started by the tests."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from app.core.datasets.confined import confine

if __name__ == "__main__":
    confine(int(sys.argv[1]), memory_bytes=256 * 2**20, file_bytes=1000, seconds=30)
    try:
        held = len(bytearray(512 * 2**20))
    except MemoryError:
        held = 0
    try:
        written = Path(sys.argv[2]).write_bytes(b"x" * 5000)
    except OSError:
        written = 0
    print(json.dumps([held, written, sorted(os.environ), sys.stdin.read()]))  # noqa: T201
