"""Files as rows or as text, whatever their format. Read in the child process alone."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from app.core.datasets import csv_rows
from app.core.datasets.csv_rows import NotCsv

MOST_JSON_BYTES = 32 * 2**20  # parsed at once; what is larger is read by DuckDB
MOST_LINE_CHARACTERS = 2**22
MOST_HTML_CHARACTERS = 1_000_000
MOST_PAGES = 2000
MOST_PAGE_CHARACTERS = 200_000
MOST_JSON_LINES = 100_000  # of a document
_HEADER_RECORDS = 1000
_MOST_COLUMNS = csv_rows.MOST_COLUMNS
_TEXT_CHARACTERS = 2**16
_BATCH = 1000
DUCKDB_MEMORY = "512MB"

Rows = Iterator[list[str]]
Text = Iterator[tuple[str, str]]


class Unreadable(Exception):
    """The file can't be read, and why: a sentence for its owner."""


def csv_table(file: IO[bytes], head: str, *, is_whole: bool) -> tuple[list[str], Rows]:
    """Headers and rows of a CSV. Raises Unreadable, also while the rows are read."""
    delimiter = csv_rows.sniff_delimiter(head, is_whole=is_whole)
    rows = _csv_rows(file, delimiter)
    return next(rows, []), rows


def _csv_rows(file: IO[bytes], delimiter: str) -> Rows:
    number = 0
    try:
        for row in csv_rows.rows_of(csv_rows.lines_of(file), delimiter):
            number += 1
            yield row
    except NotCsv as error:
        raise Unreadable(f"This is no CSV from row {number + 1} on: {error}") from None


def jsonl_table(file: IO[bytes]) -> tuple[list[str], Rows]:
    """Headers and rows of JSON Lines. Raises Unreadable, also while the rows are read."""
    return _records_table(_jsonl_records(file))


def _jsonl_records(file: IO[bytes]) -> Iterator[Any]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig")
    number = 0
    try:
        while line := text.readline(MOST_LINE_CHARACTERS):
            number += 1
            if line.strip():
                yield json.loads(line)
    except (ValueError, RecursionError):
        raise Unreadable(f"Line {number or 1} is no JSON in UTF-8.") from None
    finally:
        text.detach()


def json_value(file: IO[bytes]) -> Any:
    """A JSON document as a whole. Raises Unreadable."""
    try:
        return json.loads(file.read(MOST_JSON_BYTES + 1))
    except (ValueError, RecursionError):
        raise Unreadable("This is no JSON in UTF-8.") from None


def json_table(records: list[Any]) -> tuple[list[str], Rows]:
    """Headers and rows of a JSON array."""
    return _records_table(iter(records))


def json_text(value: Any) -> Text:
    """A JSON object as lines `path.to.key: value`."""
    lines = itertools.islice(_json_lines("", value), MOST_JSON_LINES)
    while batch := list(itertools.islice(lines, 200)):
        yield "", "\n".join(batch)


def _json_lines(path: str, value: Any) -> Iterator[str]:
    stack = [(path, value)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, dict):
            stack += [
                (f"{path}.{key}".lstrip("."), one) for key, one in reversed(value.items())
            ]
        elif isinstance(value, list) and any(isinstance(one, dict | list) for one in value):
            numbered = list(enumerate(value, 1))
            stack += [(f"{path} {number}".lstrip(), one) for number, one in reversed(numbered)]
        else:
            yield f"{path}: {_cell(value)}." if path else f"{_cell(value)}."


def _records_table(records: Iterator[Any]) -> tuple[list[str], Rows]:
    first = list(itertools.islice(records, _HEADER_RECORDS))
    names = {str(key): None for one in first if isinstance(one, dict) for key in one}
    headers = list(names)[:_MOST_COLUMNS]
    if not headers:
        width = max((len(one) for one in first if isinstance(one, list)), default=1)
        headers = [f"column {number}" for number in range(1, min(width, _MOST_COLUMNS) + 1)]
    return headers, (_record_row(headers, one) for one in itertools.chain(first, records))


def _record_row(headers: list[str], record: Any) -> list[str]:
    if isinstance(record, dict):
        return [_cell(record.get(name)) for name in headers]
    if isinstance(record, list):
        return [_cell(one) for one in record]
    return [_cell(record)]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, dict | list):
        if isinstance(value, list) and not any(isinstance(one, dict | list) for one in value):
            return ", ".join(_cell(one) for one in value[:1000])
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def duckdb_table(path: Path, format_: str) -> tuple[list[str], Rows]:
    """Headers and rows of a Parquet or a large JSON file. Raises Unreadable, also later.

    DuckDB may open this one file, and nothing that the file names.
    """
    import duckdb

    reader = "read_parquet" if format_ == "parquet" else "read_json_auto"
    try:
        connection = locked_duckdb(path)
        found = connection.execute(f"SELECT * FROM {reader}(?)", [str(path)])  # noqa: S608 - one of two words of ours
        headers = [str(column[0]) for column in found.description or []]
    except duckdb.Error as error:
        raise Unreadable(_duckdb_trouble(error)) from None
    return headers[:_MOST_COLUMNS], _duckdb_rows(found, duckdb.Error)


def locked_duckdb(path: Path) -> Any:
    """A DuckDB in memory that may read this one file, and load, write or change nothing."""
    import duckdb

    connection = duckdb.connect(
        config={
            "threads": 1, "memory_limit": DUCKDB_MEMORY, "temp_directory": "",
            "autoinstall_known_extensions": False, "autoload_known_extensions": False,
            "allow_community_extensions": False,
        }
    )  # fmt: skip
    connection.execute("SET allowed_paths = [?]", [str(path)])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _duckdb_rows(found: Any, error_type: type[Exception]) -> Rows:
    try:
        while batch := found.fetchmany(_BATCH):
            for row in batch:
                yield [_cell(value) for value in row[:_MOST_COLUMNS]]
    except error_type as error:
        raise Unreadable(_duckdb_trouble(error)) from None


def _duckdb_trouble(error: Exception) -> str:
    name = type(error).__name__
    if name == "OutOfMemoryException":
        return "It takes more memory to read than this hub allows."
    return "This file is broken: it can't be read to its end."


def plain_text(file: IO[bytes]) -> Text:
    """A text in pieces that end with a line, where lines are not too long."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig")
    try:
        while piece := text.read(_TEXT_CHARACTERS):
            yield "", piece + text.readline(_TEXT_CHARACTERS)
    except UnicodeDecodeError:
        raise Unreadable("This text is not in UTF-8.") from None
    finally:
        text.detach()


def html_text(file: IO[bytes]) -> Text:
    """What a page says, without its menus."""
    source = file.read(4 * MOST_HTML_CHARACTERS).decode("utf-8", "replace")
    import trafilatura

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    found = trafilatura.extract(
        source[:MOST_HTML_CHARACTERS], include_comments=False, include_tables=True,
        include_images=False, include_links=False, with_metadata=False,
    )  # fmt: skip
    if found:
        yield "", found


def pdf_text(file: IO[bytes]) -> Text:
    """The text of each page. Raises Unreadable: no PDF, or locked by a password."""
    import pypdf
    from pypdf.errors import PyPdfError

    try:
        reader = pypdf.PdfReader(file)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("This PDF is locked by a password.")
        pages = len(reader.pages)
    except (PyPdfError, ValueError, KeyError, TypeError, RecursionError, OSError):
        raise Unreadable("This file can't be read as a PDF.") from None
    for number in range(min(pages, MOST_PAGES)):
        text = ""
        # A page that makes no sense is left out: the others do.
        with contextlib.suppress(Exception):
            text = reader.pages[number].extract_text()
        yield f"page {number + 1}", text[:MOST_PAGE_CHARACTERS]
