"""The texts and tables in an archive, one after the other, without unpacking it to the disk.

Nothing in it is trusted: not its names, not the sizes that it states. What unpacks to far more
than it packs, is locked, or is no plain file is passed over; archives in archives too.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, cast

from app.core.datasets.sources import Unreadable

MOST_MEMBERS = 5_000
MOST_MEMBER_BYTES = 64 * 2**20
MOST_TOTAL_BYTES = 256 * 2**20
MOST_RATIO = 200  # unpacked to packed; text packs to a tenth
_RATIO_FROM_BYTES = 2**20
_NAMES = (
    ".txt", ".md", ".markdown", ".csv", ".tsv", ".tab", ".json", ".jsonl", ".ndjson",
    ".html", ".htm", ".xhtml",
)  # fmt: skip
_TAR_AT, _TAR = 257, b"ustar"
_BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, ValueError,
    NotImplementedError, RuntimeError,
)  # fmt: skip


class TooMuch(Exception):
    """An archive unpacks to more than it may."""


@dataclass(frozen=True, slots=True)
class Member:
    """A text or table in an archive. Its `file` is read before the next member is asked for."""

    name: str
    file: IO[bytes]


class _Counted(io.RawIOBase):
    """A stream that ends with TooMuch when more comes out of it than may."""

    def __init__(self, file: IO[bytes], budget: _Budget, most_bytes: int) -> None:
        self._file = file
        self._budget = budget
        self._left = most_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))
        data = self._file.read(len(view))
        view[: len(data)] = data
        self._left -= len(data)
        self._budget.spend(len(data))
        if self._left < 0:
            raise TooMuch
        return len(data)


class _Budget:
    """How much all members together may unpack to."""

    def __init__(self, packed_bytes: int) -> None:
        most = max(_RATIO_FROM_BYTES, packed_bytes * MOST_RATIO)
        self._left = min(MOST_TOTAL_BYTES, most)

    def spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise TooMuch


def members(file: IO[bytes], format_: str, name: str, *, size_bytes: int) -> Iterator[Member]:
    """The members that are text by their names. Raises Unreadable, and TooMuch on the way."""
    budget = _Budget(size_bytes)
    try:
        if format_ == "zip":
            yield from _zip_members(file, budget)
        elif format_ == "tar":
            yield from _tar_members(file, budget)
        else:
            yield from _gzip_members(file, name, budget)
    except _BROKEN:
        raise Unreadable("This archive is broken: it can't be read to its end.") from None


def _zip_members(file: IO[bytes], budget: _Budget) -> Iterator[Member]:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if len(entries) > MOST_MEMBERS:
            raise TooMuch
        for entry in entries:
            is_locked = entry.flag_bits & 0x1
            if entry.is_dir() or is_locked or not _is_text(entry.filename):
                continue
            if entry.file_size > max(_RATIO_FROM_BYTES, entry.compress_size * MOST_RATIO):
                raise TooMuch
            with archive.open(entry) as member:
                yield _member(entry.filename, member, budget)


def _tar_members(file: IO[bytes], budget: _Budget) -> Iterator[Member]:
    count = 0
    # What is seekable need not be read where it holds no text.
    with tarfile.open(fileobj=file, mode="r:" if file.seekable() else "r|") as archive:
        for entry in archive:
            count += 1
            if count > MOST_MEMBERS:
                raise TooMuch
            member = archive.extractfile(entry) if entry.isreg() else None
            if member is not None and _is_text(entry.name):
                yield _member(entry.name, member, budget)


def _gzip_members(file: IO[bytes], name: str, budget: _Budget) -> Iterator[Member]:
    with gzip.GzipFile(fileobj=file) as unpacked:
        raw = _Counted(cast(IO[bytes], unpacked), budget, MOST_TOTAL_BYTES)
        counted = io.BufferedReader(raw, 2**16)
        head = counted.peek(_TAR_AT + len(_TAR))
        if head[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
            yield from _tar_members(cast(IO[bytes], counted), _Budget(MOST_TOTAL_BYTES))
        else:
            inner = name[:-3] if name.lower().endswith(".gz") else name
            yield Member(_shown(inner), cast(IO[bytes], counted))


def _member(name: str, file: IO[bytes], budget: _Budget) -> Member:
    counted = io.BufferedReader(_Counted(file, budget, MOST_MEMBER_BYTES), 2**16)
    return Member(_shown(name), cast(IO[bytes], counted))


def _is_text(name: str) -> bool:
    return name.lower().endswith(_NAMES)


def _shown(name: str) -> str:
    """A name for people; nothing is ever opened by it."""
    plain = "".join(letter if letter.isprintable() else " " for letter in name)
    return plain.replace("\\", "/").strip("/ ")[-100:]
