"""Makes the search index of one file. Runs as a program of its own, started by `building`.

The file is a stranger's: it is read in a process with little memory and time, without a
secret in its environment, which may be killed without harm. Prints what it found as JSON.
"""

from __future__ import annotations

import itertools
import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from app.core.datasets import archives, sources
from app.core.datasets.archives import TooMuch
from app.core.datasets.building import SPARE_SECONDS
from app.core.datasets.confined import confine
from app.core.datasets.formats import HEAD_BYTES, inspect_head
from app.core.datasets.index_file import Full, IndexWriter, TimeUp
from app.core.datasets.sources import Rows, Text, Unreadable
from app.core.datasets.tables import TableFacts, index_table
from app.core.research.passages import split_passages

MEMORY_BYTES = 2 * 2**30
INDEX_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Order:
    """What to index, and on whose behalf."""

    parent: int
    source: Path
    target: Path
    format: str
    name: str
    most_passages: int
    seconds: int


@dataclass(slots=True)
class Result:
    """What came of it. `note` is for people: what was left out."""

    headers: list[str] | None = None
    preview_rows: list[list[str]] | None = None
    row_count: int | None = None
    kind: str | None = None
    passages: int = 0
    is_cut: bool = False
    note: str | None = None


def main(order: Order) -> dict[str, Any]:
    """Give up what is not needed, then index; what is to be printed."""
    confine(
        order.parent, memory_bytes=MEMORY_BYTES, file_bytes=INDEX_BYTES,
        seconds=order.seconds + SPARE_SECONDS,
    )  # fmt: skip
    signal.signal(signal.SIGALRM, _time_up)
    signal.setitimer(signal.ITIMER_REAL, order.seconds)
    return make_index(order)


def make_index(order: Order) -> dict[str, Any]:
    """Index; what came of it, or `error`."""
    index = IndexWriter(order.target, most_passages=order.most_passages)
    work = _Work(order, index)
    try:
        work.run()
    except TimeUp:
        work.result.is_cut = True
    except Unreadable as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "It takes more memory to read than this hub allows."}
    except Exception:  # noqa: BLE001 - parsers meet hostile bytes; all they raise means one thing
        return {"error": "This file can't be read."}
    signal.setitimer(signal.ITIMER_REAL, 0)
    index.close()
    work.result.passages = index.total
    found = work.result
    return {
        "headers": found.headers, "preview_rows": found.preview_rows,
        "row_count": found.row_count, "kind": found.kind, "passages": found.passages,
        "is_cut": found.is_cut, "note": found.note,
    }  # fmt: skip


def _time_up(_number: int, _frame: object) -> None:
    raise TimeUp


class _Work:
    """One file on its way into its index."""

    def __init__(self, order: Order, index: IndexWriter) -> None:
        self._order = order
        self._index = index
        self.result = Result()

    def run(self) -> None:
        order = self._order
        with order.source.open("rb") as file:
            if order.format in ("zip", "tar", "gz"):
                self._archive(file)
                return
            if order.format in ("parquet", "json") and self._is_for_duckdb():
                headers, rows = sources.duckdb_table(order.source, order.format)
                self._keep(self._table(headers, rows, ""))
                return
            self._one(file, order.format, "")

    def _is_for_duckdb(self) -> bool:
        order = self._order
        return (
            order.format == "parquet" or order.source.stat().st_size > sources.MOST_JSON_BYTES
        )

    def _one(self, file: IO[bytes], format_: str, name: str) -> None:
        """A file that is read from its beginning to its end; with a name: out of an archive."""
        prefix = f"{name}, " if name else ""
        if format_ == "csv":
            head, is_whole, file = _headed(file)
            text = head.decode("utf-8", "ignore").removeprefix("\ufeff")
            headers, rows = sources.csv_table(file, text, is_whole=is_whole)
            self._keep(self._table(headers, rows, name), is_member=bool(name))
        elif format_ == "jsonl":
            headers, rows = sources.jsonl_table(file)
            self._keep(self._table(headers, rows, name), is_member=bool(name))
        elif format_ == "json":
            self._json(file, name)
        else:
            self._text(_texts(file, format_), prefix)

    def _json(self, file: IO[bytes], name: str) -> None:
        value = sources.json_value(file)
        if isinstance(value, list) and any(isinstance(one, dict) for one in value):
            headers, rows = sources.json_table(value)
            self._keep(self._table(headers, rows, name), is_member=bool(name))
            return
        if not name:
            self.result.kind = "document"
        self._text(sources.json_text(value), f"{name}, " if name else "")

    def _table(self, headers: list[str], rows: Rows, name: str) -> TableFacts:
        prefix = f"{name}, " if name else ""
        title = f"“{name or self._order.name}”"
        if not name:
            self.result.headers = headers
        return index_table(headers, rows, self._index, title=title, prefix=prefix)

    def _keep(self, facts: TableFacts, *, is_member: bool = False) -> None:
        self.result.is_cut = self.result.is_cut or facts.is_cut
        if is_member and facts.is_unfinished:
            raise TimeUp  # for the files behind it, too
        if not is_member:
            self.result.kind = "table"
            self.result.headers = facts.headers
            self.result.preview_rows = facts.preview_rows
            self.result.row_count = None if facts.is_unfinished else facts.row_count

    def _text(self, texts: Text, prefix: str) -> None:
        try:
            for place, text in texts:
                for piece in split_passages(_printable(text)):
                    self._index.add(f"{prefix}{place}".removesuffix(", "), piece)
        except Full:
            self.result.is_cut = True

    def _archive(self, file: IO[bytes]) -> None:
        order = self._order
        size = order.source.stat().st_size
        passed_over = 0
        try:
            for member in archives.members(file, order.format, order.name, size_bytes=size):
                head = member.file.peek(HEAD_BYTES)[:HEAD_BYTES]  # type: ignore[attr-defined]
                told = inspect_head(head, member.name, is_whole=False)
                if told is None or told.format in ("parquet", "pdf", "zip", "tar", "gz"):
                    continue
                try:
                    self._one(member.file, told.format, member.name)
                except Unreadable:
                    passed_over += 1
        except TooMuch:
            self.result.is_cut = True
            self.result.note = (
                "It unpacks to more than is read; only its beginning is searched."
            )
        if passed_over:
            self.result.note = f"{passed_over} of the files in it could not be read."


def _texts(file: IO[bytes], format_: str) -> Text:
    if format_ == "html":
        return sources.html_text(file)
    return sources.pdf_text(file) if format_ == "pdf" else sources.plain_text(file)


def _headed(file: IO[bytes]) -> tuple[bytes, bool, IO[bytes]]:
    """The head of a file, whether that is all of it, and the file from its beginning again."""
    if file.seekable():
        head = file.read(HEAD_BYTES)
        file.seek(0)
        return head, len(head) < HEAD_BYTES, file
    head = file.peek(HEAD_BYTES)[:HEAD_BYTES]  # type: ignore[attr-defined]
    return head, False, file


def _printable(text: str) -> str:
    return "".join(itertools.filterfalse(_is_control, text)) if _has_control(text) else text


def _has_control(text: str) -> bool:
    return any(map(_is_control, set(text)))


def _is_control(letter: str) -> bool:
    return letter < " " and letter not in "\t\n\r"


def _order(arguments: Iterator[str]) -> Order:
    parent, source, target, format_, name, most, seconds = arguments
    return Order(
        int(parent), Path(source), Path(target), format_, name, int(most), int(seconds)
    )


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(_order(iter(sys.argv[1:])))))
