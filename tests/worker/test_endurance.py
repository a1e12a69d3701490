"""The whole hub under agents that beat, while its parts are killed: a minute of it in seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.databases import Database

ROOT = Path(__file__).parents[2]
KINDS = {"sqlite": "sqlite", "postgres": "postgresql"}


@pytest.mark.slow
def test_points_are_those_of_the_answered_beats_whatever_is_killed(database: Database) -> None:
    command = [
        sys.executable, "-m", "benchmarks.endurance", "--database", KINDS[database.name],
        "--minutes", "0.2", "--agents", "40", "--period", "0.5", "--earlier-beats", "30",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    for part in ("redis", "ingester", "web"):
        assert f"{part} killed: at work again" in done.stdout
