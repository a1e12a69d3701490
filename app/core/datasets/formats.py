"""What a file is: from its content first, from its name where the content leaves it open."""

from __future__ import annotations

import io
import itertools
import json
import re
from dataclasses import replace
from typing import Any

from app.core.datasets import csv_rows
from app.core.datasets.csv_counter import count_rows
from app.core.datasets.csv_rows import NotCsv
from app.core.domain.datasets import PREVIEW_ROWS, DatasetKind, Inspected
from app.core.domain.errors import InvalidInput
from app.core.storage import Storage

HEAD_BYTES = 256 * 1024
MOST_PREVIEW_CHARACTERS = 500  # of a cell

EMPTY = "Dataset file is empty"
NO_CSV = "File must be a valid CSV file"
UNKNOWN = (
    "This is none of the formats that can be used: CSV, JSON, JSON Lines, Parquet, plain text,"
    " Markdown, HTML (all in UTF-8), PDF, zip, tar and gzip."
)

KINDS = {
    "csv": DatasetKind.TABLE, "jsonl": DatasetKind.TABLE, "parquet": DatasetKind.TABLE,
    "json": DatasetKind.TABLE, "txt": DatasetKind.DOCUMENT, "md": DatasetKind.DOCUMENT,
    "html": DatasetKind.DOCUMENT, "pdf": DatasetKind.DOCUMENT, "zip": DatasetKind.ARCHIVE,
    "tar": DatasetKind.ARCHIVE, "gz": DatasetKind.ARCHIVE,
}  # fmt: skip

_MAGIC = (
    (b"PAR1", "parquet"), (b"%PDF-", "pdf"), (b"PK\x03\x04", "zip"), (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b\x08", "gz"),
)  # fmt: skip
_TAR_AT, _TAR = 257, b"ustar"
_HTML = re.compile(
    r"\s*(<\?xml[^>]*>\s*)?(<!--.{0,2000}?-->\s*)*<(!doctype\s+html|html)\b", re.I | re.S
)
_JSON = re.compile(r'\s*(\{\s*"|\[\s*[{\["\d\]tfn-])')
_TABLE_NAMES = (".csv", ".tsv", ".tab")
_MARKDOWN_NAMES = (".md", ".markdown", ".mdx")
_HTML_NAMES = (".html", ".htm", ".xhtml")
_LINES_NAMES = (".jsonl", ".ndjson")


def inspect(
    storage: Storage, stored_name: str, original_name: str, *, must_be_csv: bool = False
) -> Inspected:
    """What a stored file is, by its beginning: it takes milliseconds.

    With `must_be_csv` its rows are counted to the end: those of a large file by a process of
    its own, so call this on the event loop and not in a thread. Raises InvalidInput: the file is empty, no CSV, or in no format known here.
    """
    with storage.open(stored_name) as file:
        head = file.read(HEAD_BYTES)
    is_whole = len(head) < HEAD_BYTES
    if not head.removeprefix(b"\xef\xbb\xbf").strip():
        raise InvalidInput(EMPTY, field="file")
    found = inspect_head(head, original_name, is_whole=is_whole, is_table=must_be_csv)
    if not must_be_csv:
        if found is None:
            raise InvalidInput(UNKNOWN, field="file")
        return found
    if found is None or found.format != "csv":
        raise InvalidInput(NO_CSV, field="file")
    if not is_whole:
        found = replace(found, row_count=_count_rows(storage, stored_name, head))
    if not found.row_count:
        raise InvalidInput(EMPTY, field="file")
    return found


def inspect_head(
    head: bytes, name: str, *, is_whole: bool, is_table: bool = False
) -> Inspected | None:
    """What a file is by its beginning; None for no format known here.

    `is_table`: text that could be anything is taken as CSV, whatever its name.
    """
    for magic, format_ in _MAGIC:
        if head.startswith(magic):
            return _plain(format_)
    if head[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
        return _plain("tar")
    text = _as_text(head, is_whole=is_whole)
    if text is None:
        return None
    lowered = name.lower()
    if _HTML.match(text) or (lowered.endswith(_HTML_NAMES) and "<" in text):
        return _plain("html")
    found = _as_json(text, lowered, is_whole=is_whole)
    if found is not None:
        return found
    if lowered.endswith(_MARKDOWN_NAMES) and not is_table:
        return _plain("md")
    return _as_csv(text, lowered, is_whole=is_whole, is_table=is_table) or _plain("txt")


def _plain(format_: str) -> Inspected:
    return Inspected(format_, KINDS[format_])


def _as_text(head: bytes, *, is_whole: bool) -> str | None:
    """The text; None for bytes that are none. A head may end within a character."""
    if b"\0" in head:
        return None
    try:
        return head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if is_whole or error.start < len(head) - 3:
            return None
        return head[: error.start].decode("utf-8-sig")


def _as_json(text: str, name: str, *, is_whole: bool) -> Inspected | None:
    start = text.lstrip()[:1]
    if start not in ("{", "["):
        return None
    if is_whole and not name.endswith(_LINES_NAMES):
        value = _parsed(text)
        if value is not None:
            return _json_of(value)
    lines = [line for line in text.splitlines() if line.strip()]
    # The last line of a head may be cut off.
    whole = lines if is_whole else lines[:-1]
    if whole and all(isinstance(_parsed(line), dict | list) for line in whole[:PREVIEW_ROWS]):
        return _plain("jsonl")
    if is_whole or not _JSON.match(text):
        return None
    return Inspected("json", DatasetKind.TABLE if start == "[" else DatasetKind.DOCUMENT)


def _json_of(value: Any) -> Inspected:
    is_table = isinstance(value, list) and any(isinstance(one, dict) for one in value)
    return Inspected("json", DatasetKind.TABLE if is_table else DatasetKind.DOCUMENT)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _as_csv(text: str, name: str, *, is_whole: bool, is_table: bool) -> Inspected | None:
    is_named = name.endswith(_TABLE_NAMES) or is_table
    if not is_named and not csv_rows.is_tabular(text, is_whole=is_whole):
        return None
    delimiter = csv_rows.sniff_delimiter(text, is_whole=is_whole)
    rows: list[list[str]] = []
    try:
        found = csv_rows.rows_of(io.StringIO(text, newline=""), delimiter)
        rows.extend(itertools.islice(found, PREVIEW_ROWS + 1))
        if is_whole and rows:
            more = sum(1 for _ in found)
            return _table(rows, len(rows) + more - 1)
    except NotCsv:
        # A head may end within quotes.
        if is_whole or len(rows) < 2:
            return None
    return _table(rows, None) if rows else None


def _count_rows(storage: Storage, stored_name: str, head: bytes) -> int:
    """Rows of a whole CSV without its header. Raises InvalidInput when it is none to its end."""
    delimiter = csv_rows.sniff_delimiter(_as_text(head, is_whole=False) or "", is_whole=False)
    local = storage.local_path(stored_name)
    try:
        if local is None:
            return count_rows(delimiter, blocks=storage.blocks(stored_name)) - 1
        with local.open("rb") as file:
            return count_rows(delimiter, source=file) - 1
    except NotCsv:
        raise InvalidInput(NO_CSV, field="file") from None


def _table(rows: list[list[str]], row_count: int | None) -> Inspected:
    headers, *more = rows
    return Inspected(
        "csv", DatasetKind.TABLE, tuple(cell[:MOST_PREVIEW_CHARACTERS] for cell in headers),
        tuple(tuple(cell[:MOST_PREVIEW_CHARACTERS] for cell in row) for row in more), row_count,
    )  # fmt: skip
