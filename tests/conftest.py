"""What every test may ask for. The fixtures stand in `tests/fixtures`, one topic a file."""

from __future__ import annotations

import os

LONGEST_NAME = 200

pytest_plugins = [
    "tests.fixtures.accounts",
    "tests.fixtures.browser",
    "tests.fixtures.clocks",
    "tests.fixtures.databases",
    "tests.fixtures.http",
    "tests.fixtures.hub",
    "tests.fixtures.google",
    "tests.fixtures.mail",
    "tests.fixtures.memory",
    "tests.fixtures.local_run",
    "tests.fixtures.redis",
    "tests.fixtures.s3",
    "tests.fixtures.sockets",
    "tests.fixtures.web",
]


def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` means here: two a core, since many tests wait for processes of theirs."""
    return 2 * (os.cpu_count() or 1)


def pytest_make_parametrize_id(val: object) -> str | None:
    """A value of megabytes is no name: names are kept, sent between processes and printed."""
    if isinstance(val, str | bytes) and len(val) > LONGEST_NAME:
        return f"{val[:40]!a} and so on, {len(val)} long"
    return None
