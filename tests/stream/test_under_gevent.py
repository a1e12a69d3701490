"""The same promises in a process patched by gevent, as web and worker run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("tests", ["tests/stream/test_stream.py", "tests/worker/test_queue.py"])
def test_the_same_tests_pass_under_gevent(tests: str) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "gevent.monkey", "--module", "pytest", "-q", tests,
            "-p", "no:cacheprovider", "-p", "no:xdist",
            # Only what these tests need: nothing else has to work in a patched test run.
            "--confcutdir", str(Path(tests).parent), "-p", "tests.fixtures.redis",
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
