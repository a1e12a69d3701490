"""The same promises in a process patched by gevent, as web and worker run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_stream_tests_pass_under_gevent() -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "gevent.monkey", "--module", "pytest", "-q",
            "-p", "no:cacheprovider", "-p", "no:xdist",
            "--confcutdir", "tests/stream", "-p", "tests.fixtures.redis", "tests/stream/test_stream.py",
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
