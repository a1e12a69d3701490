"""Programs that read strangers' files: what they may not do, and that they end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from app.core.datasets.building import KILLED, Built, IndexLimits, build_index
from app.core.datasets.confined import run_confined


def test_a_confined_program_has_little_memory_and_disk_and_sees_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "the hub's own")

    said = run_confined(
        "tests.datasets.greedy", [str(tmp_path / "big")], seconds=30, blocks=[b"given"]
    )

    held, written, names, given = json.loads(said)
    assert (held, written, given) == (0, 0, "given")
    assert not {name for name in names if "SECRET" in name or "WEFT" in name}
    assert "DATABASE_URL" not in names


def test_a_file_is_indexed_by_a_process_of_its_own(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "index.db"
    source.write_bytes(b"a,b\n1,two\n")

    built = build_index(
        source, target, format_="csv", name="x.csv\0", limits=IndexLimits(100, 30)
    )

    assert built == Built(
        headers=["a", "b"], preview_rows=[["1", "two"]], row_count=1, kind="table", passages=2
    )
    assert target.exists()


def test_a_program_that_dies_is_said_to_take_too_much(tmp_path: Path) -> None:
    # Without a folder for it, there is no index to write: the program ends with an error.
    source = tmp_path / "source"
    source.write_bytes(b"text")
    target = tmp_path / "index.db"
    target.mkdir()

    built = build_index(source, target, format_="txt", name="x", limits=IndexLimits(9, 9))

    assert built == Built(error=KILLED)


def test_reading_ends_when_its_time_is_up_and_keeps_what_it_has(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "index.db"
    os.mkfifo(source)
    end = os.open(source, os.O_RDWR)  # nobody ever writes: its reader waits

    built = build_index(source, target, format_="txt", name="x", limits=IndexLimits(9, 1))

    os.close(end)
    assert built.error is None
    assert built.passages == 0
