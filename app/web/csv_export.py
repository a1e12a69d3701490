"""Tables as CSV files that a spreadsheet opens without running anything in them."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

from flask import Response

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_IN_MEMORY = 2**20
_BLOCK = 2**16


def csv_response(
    filename: str, header: Sequence[str], rows: Iterable[Sequence[object]]
) -> Response:
    """A download of these rows. All are read before the first is sent.

    So no database connection waits for a slow reader; many rows wait in a temporary file.
    """
    file = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - closed with the response
        _IN_MEMORY, "w+", encoding="utf-8", newline=""
    )
    try:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([plain_cell(value) for value in row] for row in rows)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    response = Response(_blocks(file), mimetype="text/csv")
    response.call_on_close(file.close)
    response.headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def plain_cell(value: object) -> object:
    """A text that a spreadsheet would take for a formula gets an apostrophe before it."""
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA):
        return f"'{value}"
    return value


def _blocks(file: IO[str]) -> Iterator[str]:
    with file:
        while block := file.read(_BLOCK):
            yield block
