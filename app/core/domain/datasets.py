"""Datasets: their formats, their kinds, the states of their index."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

PREVIEW_ROWS = 10


class DatasetStatus(StrEnum):
    """processing → ready | failed. Its file can be downloaded in all of them."""

    PROCESSING = "processing"
    READY = "ready"
    FAILED = "failed"


class DatasetKind(StrEnum):
    """What a file is to its readers: rows, prose, or other files."""

    TABLE = "table"
    DOCUMENT = "document"
    ARCHIVE = "archive"


@dataclass(frozen=True, slots=True)
class Inspected:
    """What a file itself says. `row_count` excludes the header; None: not counted yet."""

    format: str
    kind: DatasetKind
    headers: tuple[str, ...] | None = None
    preview_rows: tuple[tuple[str, ...], ...] | None = None
    row_count: int | None = None
