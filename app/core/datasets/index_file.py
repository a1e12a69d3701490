"""A dataset's search index: one SQLite file with its passages and an FTS5 table of their words.

It is written by a child process that reads somebody else's file, so it is opened as what
it may be: a stranger's database.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from app.core.datasets.words import index_words

SUMMARY = "summary"
MOST_SUMMARIES = 1000  # ids up to here are kept for them
_SCHEMA = """
PRAGMA journal_mode=OFF;
PRAGMA synchronous=OFF;
CREATE TABLE passages (id INTEGER PRIMARY KEY, place TEXT NOT NULL, text TEXT NOT NULL);
CREATE VIRTUAL TABLE search USING fts5(words, content='', tokenize='unicode61 remove_diacritics 0');
"""


class Full(Exception):
    """As many passages as an index may hold."""


class TimeUp(BaseException):
    """No time is left to read. What was indexed so far stays. Raised anywhere, by a signal."""


@dataclass(frozen=True, slots=True)
class IndexedPassage:
    """A passage as it was found. `place`: where in the file; `words` as the index has them."""

    id: int
    place: str
    text: str


class IndexWriter:
    """Writes a new index."""

    def __init__(self, path: Path, *, most_passages: int) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.executescript(_SCHEMA)
        self._connection.execute("BEGIN")
        self._most = most_passages
        self.count = 0
        self._summaries = 0

    def add(self, place: str, text: str) -> None:
        """Append a passage. Raises Full."""
        if self.count >= self._most:
            raise Full
        self.count += 1
        self._insert(MOST_SUMMARIES + self.count, place, text)

    def add_summary(self, text: str) -> None:
        """Say what the file, or a part of it, is as a whole. There is room for it at any time."""
        if self._summaries < MOST_SUMMARIES:
            self._summaries += 1
            self._insert(self._summaries, SUMMARY, text)

    def _insert(self, id_: int, place: str, text: str) -> None:
        self._connection.execute("INSERT INTO passages VALUES (?, ?, ?)", (id_, place, text))
        self._connection.execute(
            "INSERT INTO search (rowid, words) VALUES (?, ?)",
            (id_, " ".join(index_words(text))),
        )

    def close(self) -> None:
        """Complete the file."""
        self._connection.execute("COMMIT")
        self._connection.execute("INSERT INTO search (search) VALUES ('optimize')")
        self._connection.close()

    @property
    def total(self) -> int:
        """Passages in it, summaries included."""
        return self.count + self._summaries


class IndexReader:
    """Searches an index. Each call opens the file: it may be used in any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def search(
        self, queries: Iterable[Sequence[str]], *, most: int
    ) -> list[list[IndexedPassage]]:
        """For each list of words the passages with any of them, best first by bm25.

        Raises sqlite3.DatabaseError when the file is broken.
        """
        with closing(self._open()) as connection:
            return [self._search(connection, words, most) for words in queries]

    def summary(self, *, most: int = 3) -> list[IndexedPassage]:
        """What the file says of itself as a whole; empty for documents."""
        with closing(self._open()) as connection:
            rows = connection.execute(
                "SELECT id, place, text FROM passages WHERE id <= ? ORDER BY id LIMIT ?",
                (MOST_SUMMARIES, most),
            )
            return [IndexedPassage(*row) for row in rows]

    def opening(self, *, most: int) -> list[IndexedPassage]:
        """Its first passages, besides summaries."""
        with closing(self._open()) as connection:
            rows = connection.execute(
                "SELECT id, place, text FROM passages WHERE id > ? ORDER BY id LIMIT ?",
                (MOST_SUMMARIES, most),
            )
            return [IndexedPassage(*row) for row in rows]

    def beginning(self, *, most: int = 8) -> list[IndexedPassage]:
        """The file's first passages. Raises sqlite3.DatabaseError when the index is broken."""
        with closing(self._open()) as connection:
            rows = connection.execute(
                "SELECT id, place, text FROM passages WHERE id > ? ORDER BY id LIMIT ?",
                (MOST_SUMMARIES, most),
            )
            return [IndexedPassage(*row) for row in rows]

    @staticmethod
    def _search(
        connection: sqlite3.Connection, words: Sequence[str], most: int
    ) -> list[IndexedPassage]:
        if not words:
            return []
        wanted = " OR ".join('"' + word.replace('"', "") + '"' for word in words)
        rows = connection.execute(
            "SELECT id, place, text FROM (SELECT rowid AS id, rank AS score FROM search"
            " WHERE search MATCH ? ORDER BY rank LIMIT ?) JOIN passages USING (id) ORDER BY score, id",
            (wanted, most),
        )
        return [IndexedPassage(*row) for row in rows]

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self._path.resolve().as_uri()}?mode=ro&immutable=1", uri=True
        )
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cell_size_check=ON")
        return connection
