"""A table as text that can be searched: what its columns hold, and its rows in groups."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from app.core.datasets.index_file import Full, IndexWriter, TimeUp
from app.core.domain.datasets import PREVIEW_ROWS
from app.core.research.passages import PASSAGE_CHARACTERS, split_passages

MOST_SUMMED_ROWS = 200_000
MOST_SUMMED_COLUMNS = 200
MOST_VALUES = 1000  # different ones, counted per column
MOST_PREVIEW_CHARACTERS = 500
_MOST_CELL_CHARACTERS = 4_000  # of a cell in a passage
_MOST_VALUE_CHARACTERS = 60
_SHOWN_VALUES = 5
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d{1,3})?")
_WHOLE = re.compile(r"[-+]?\d{1,18}")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?")

Row = Sequence[str]


@dataclass(slots=True)
class TableFacts:
    """What was seen of a table.

    `is_cut`: not all rows are among the passages. `is_unfinished`: not all are counted either.
    """

    headers: list[str]
    preview_rows: list[list[str]] = field(default_factory=list)
    row_count: int = 0
    is_cut: bool = False
    is_unfinished: bool = False


@dataclass(slots=True)
class _Column:
    name: str
    filled: int = 0
    empty: int = 0
    numbers: int = 0
    wholes: int = 0
    dates: int = 0
    total: float = 0.0
    least: float = math.inf
    greatest: float = -math.inf
    first_date: str = ""
    last_date: str = ""
    values: Counter[str] = field(default_factory=Counter)

    def take(self, cell: str) -> None:
        cell = cell.strip()
        if not cell:
            self.empty += 1
            return
        self.filled += 1
        if cell in self.values or len(self.values) < MOST_VALUES:
            self.values[cell[:_MOST_VALUE_CHARACTERS]] += 1
        if _NUMBER.fullmatch(cell):
            self._take_number(cell)
        elif _DATE.fullmatch(cell):
            self.dates += 1
            self.first_date = min(self.first_date or cell, cell)
            self.last_date = max(self.last_date, cell)

    def _take_number(self, cell: str) -> None:
        value = float(cell)
        if not math.isfinite(value):
            return
        self.numbers += 1
        self.wholes += _WHOLE.fullmatch(cell) is not None
        self.total += value
        self.least, self.greatest = min(self.least, value), max(self.greatest, value)

    def as_text(self) -> str:
        name = self.name or "(no name)"
        if not self.filled:
            return f"{name}: empty."
        parts = [*self._type(), *self._frequent()]
        if self.empty:
            parts.append(f"{self.empty} empty")
        return f"{name}: {'; '.join(parts)}."

    def _type(self) -> list[str]:
        if self.numbers == self.filled:
            kind = "whole number" if self.wholes == self.filled else "number"
            mean = self.total / self.numbers
            return [
                f"{kind} from {_plain(self.least)} to {_plain(self.greatest)}",
                f"mean {_plain(mean)}", f"sum {_plain(self.total)}",
            ]  # fmt: skip
        if self.dates == self.filled:
            return [f"date from {self.first_date} to {self.last_date}"]
        return ["text"]

    def _frequent(self) -> list[str]:
        different = len(self.values)
        if different >= MOST_VALUES:
            return [f"{MOST_VALUES} or more different values"]
        if different == 1:
            return [f"always {next(iter(self.values))}"]
        if different == self.filled:
            return ["all different"]
        common = self.values.most_common(_SHOWN_VALUES)
        shown = ", ".join(f"{value} ({count} rows)" for value, count in common)
        return [f"{different} different values, most often {shown}"]


def index_table(
    headers: Sequence[str],
    rows: Iterable[Row],
    index: IndexWriter,
    *,
    title: str,
    prefix: str = "",
) -> TableFacts:
    """Make passages of a table: groups of rows as they come, what its columns hold at the end.

    All rows are counted, also those that find no place in the index. When the time is up, the
    table is what was read of it.
    """
    facts = TableFacts([name.strip()[:MOST_PREVIEW_CHARACTERS] for name in headers])
    columns = [_Column(name) for name in facts.headers[:MOST_SUMMED_COLUMNS]]
    group = _Group(index, facts.headers, prefix)
    try:
        for row in rows:
            _take_row(facts, columns, group, row)
        facts.is_cut = facts.is_cut or not group.flush()
    except TimeUp:
        facts.is_cut = facts.is_unfinished = True
    _add_summary(facts, columns, index, title)
    return facts


def _take_row(facts: TableFacts, columns: Sequence[_Column], group: _Group, row: Row) -> None:
    facts.row_count += 1
    if facts.row_count <= PREVIEW_ROWS:
        facts.preview_rows.append([cell[:MOST_PREVIEW_CHARACTERS] for cell in row])
    if facts.row_count <= MOST_SUMMED_ROWS:
        for column, cell in zip(columns, row, strict=False):
            column.take(cell)
    if not facts.is_cut:
        facts.is_cut = not group.take(facts.row_count, row)


class _Group:
    """Rows that share a passage. What is given back says whether the index had room."""

    def __init__(self, index: IndexWriter, headers: Sequence[str], prefix: str) -> None:
        self._index = index
        self._headers = headers
        self._prefix = prefix
        self._texts: list[str] = []
        self._size = 0
        self._first = self._last = 1

    def take(self, number: int, row: Row) -> bool:
        text = _row_text(self._headers, row)
        has_room = True
        if self._texts and self._size + len(text) + 1 > PASSAGE_CHARACTERS:
            has_room = self.flush()
        if not self._texts:
            self._first, self._size = number, 0
        self._texts.append(text)
        self._size += len(text) + 1
        self._last = number
        return has_room

    def flush(self) -> bool:
        texts, self._texts = self._texts, []
        if not texts:
            return True
        where = str(self._first) if self._first == self._last else f"{self._first}–{self._last}"
        place = f"{self._prefix}row{'s' if len(texts) > 1 else ''} {where}"
        whole = "\n".join(texts)
        pieces = [whole] if len(whole) <= PASSAGE_CHARACTERS else split_passages(whole)
        try:
            for piece in pieces:
                self._index.add(place, piece)
        except Full:
            return False
        return True


def _row_text(headers: Sequence[str], row: Row) -> str:
    cells = []
    for at, cell in enumerate(row):
        value = " ".join(cell[:_MOST_CELL_CHARACTERS].split())
        if value:
            name = headers[at] if at < len(headers) else ""
            cells.append(f"{name}: {value}" if name else value)
    return "; ".join(cells) + "."


def _add_summary(
    facts: TableFacts, columns: Sequence[_Column], index: IndexWriter, title: str
) -> None:
    more = "more than " if facts.is_unfinished else ""
    rows = f"{more}{facts.row_count} row{'' if facts.row_count == 1 else 's'}"
    width = len(facts.headers)
    lines = [f"The table {title} has {rows} and {width} column{'' if width == 1 else 's'}."]
    if facts.row_count > MOST_SUMMED_ROWS:
        lines.append(f"What follows is of its first {MOST_SUMMED_ROWS} rows.")
    lines += [column.as_text() for column in columns]
    for piece in split_passages("\n".join(lines)):
        index.add_summary(piece)


def _plain(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.6g}"
