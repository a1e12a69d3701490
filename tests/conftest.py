"""What every test may ask for. The fixtures stand in `tests/fixtures`, one topic a file."""

from __future__ import annotations

import os

pytest_plugins = [
    "tests.fixtures.accounts",
    "tests.fixtures.browser",
    "tests.fixtures.clocks",
    "tests.fixtures.databases",
    "tests.fixtures.http",
    "tests.fixtures.hub",
    "tests.fixtures.google",
    "tests.fixtures.mail",
    "tests.fixtures.local_run",
    "tests.fixtures.redis",
    "tests.fixtures.s3",
    "tests.fixtures.sockets",
    "tests.fixtures.web",
]


def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` means here: two a core, since many tests wait for processes of theirs."""
    return 2 * (os.cpu_count() or 1)
