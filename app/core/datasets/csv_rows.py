"""CSV as RFC 4180 has it, in UTF-8, with any common delimiter, row by row."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import IO

DELIMITERS = (",", ";", "\t", "|")
MOST_COLUMNS = 2_000
MOST_CELL_CHARACTERS = 131_072  # the csv module's own limit
MOST_LINE_CHARACTERS = 2**20
MOST_SNIFFED_ROWS = 50


class NotCsv(Exception):
    """These bytes are no CSV, and why."""


def lines_of(file: IO[bytes]) -> Iterator[str]:
    """The lines of an open file, each with its end. Raises NotCsv for what is no UTF-8 text."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        while line := text.readline(MOST_LINE_CHARACTERS):
            if "\0" in line:
                raise NotCsv("It holds bytes that no text has.")
            if len(line) == MOST_LINE_CHARACTERS:
                raise NotCsv("One of its lines is too long.")
            yield line
    except UnicodeDecodeError:
        raise NotCsv("It is not in UTF-8.") from None
    finally:
        text.detach()


def rows_of(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    """The rows, without empty lines. Raises NotCsv where the quoting is broken."""
    try:
        for row in csv.reader(lines, delimiter=delimiter, strict=True):
            if len(row) > MOST_COLUMNS:
                raise NotCsv(f"It has more than {MOST_COLUMNS} columns.")
            if row:
                yield row
    except csv.Error as error:
        raise NotCsv(f"{str(error)[:1].upper()}{str(error)[1:]}.") from None


def sniff_delimiter(head: str, *, is_whole: bool) -> str:
    """The delimiter with which most of the first rows have equally many cells.

    A comma when the text has one column. The last line of a head may be cut off.
    """
    best, delimiter = 0.0, ","
    for candidate in DELIMITERS:
        sizes = _row_sizes(head, candidate, is_whole=is_whole)
        if not sizes:
            continue
        width, count = Counter(sizes).most_common(1)[0]
        # The header tells the number of columns better than any row.
        score = count / len(sizes) + (0.5 if sizes[0] == width else 0) + min(width, 20) / 100
        if width > 1 and score > best:
            best, delimiter = score, candidate
    return delimiter


def is_tabular(head: str, *, is_whole: bool) -> bool:
    """Whether a text without a telling name is a table: two columns or more in every row."""
    sizes = _row_sizes(head, sniff_delimiter(head, is_whole=is_whole), is_whole=is_whole)
    return len(sizes) > 1 and sizes[0] > 1 and len(set(sizes)) == 1


def _row_sizes(head: str, delimiter: str, *, is_whole: bool) -> list[int]:
    sizes: list[int] = []
    try:
        for row in rows_of(io.StringIO(head, newline=""), delimiter):
            sizes.append(len(row))
            if len(sizes) > MOST_SNIFFED_ROWS:
                return sizes
    except NotCsv:
        # A head may end within quotes; what came before counts.
        return [] if is_whole else sizes
    return sizes if is_whole else sizes[:-1] or sizes
