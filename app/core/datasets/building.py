"""Has an index made by a process of its own, and says what came of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core.datasets.confined import run_confined

_PROGRAM = "app.core.datasets.indexer"
SPARE_SECONDS = 20  # to complete the file, when the time for reading is up
_MOST_MESSAGE = 300

KILLED = "It takes more memory or time to read than this hub allows."


@dataclass(frozen=True, slots=True)
class IndexLimits:
    """What one index may take. `seconds`: after them it ends with what it has."""

    passages: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Built:
    """What a file holds. `error` says why there is no index; `note` what was left out of it."""

    headers: list[str] | None = None
    preview_rows: list[list[str]] | None = None
    row_count: int | None = None
    kind: str | None = None
    passages: int = 0
    note: str | None = None
    error: str | None = None


def build_index(
    source: Path, target: Path, *, format_: str, name: str, limits: IndexLimits
) -> Built:
    """Write the index of `source` to `target`. Interrupted, it leaves no process behind."""
    arguments = (
        str(source), str(target), format_, name.replace("\0", ""), str(limits.passages),
        str(limits.seconds),
    )  # fmt: skip
    said = run_confined(
        _PROGRAM, arguments, seconds=limits.seconds + SPARE_SECONDS, folder=target.parent
    )
    return _read(said, limits)


def _read(said: bytes, limits: IndexLimits) -> Built:
    try:
        found: dict[str, Any] = json.loads(said)
    except ValueError:  # killed: out of its time or memory
        return Built(error=KILLED)
    if "error" in found:
        return Built(error=str(found["error"])[:_MOST_MESSAGE])
    note = found["note"]
    if found["passages"] == 0:
        note = note or "No text was found in it: there is nothing to search."
    elif found["is_cut"]:
        note = note or (
            "Only its beginning is searched: an index ends after"
            f" {limits.passages} passages or {limits.seconds} seconds."
        )
    return Built(
        headers=found["headers"], preview_rows=found["preview_rows"],
        row_count=found["row_count"], kind=found["kind"], passages=found["passages"], note=note,
    )  # fmt: skip
