"""One file over HTTP: in parallel ranges, resumable, checked before it gets its name."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

CHUNK_BYTES = 8 * 1024 * 1024
CONNECTIONS = 4
PIECE_BYTES = 256 * 1024
DISK_MARGIN_BYTES = 256 * 1024 * 1024
CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0


class FetchFailed(Exception):
    """This try failed. `is_final`: another one would fail the same way."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


class WrongContent(FetchFailed):
    """All bytes came, and they aren't the promised ones. What came is thrown away."""


class Stopped(Exception):
    """The agent stops, or the download isn't wanted any more."""


@dataclass(slots=True)
class Progress:
    """What is known of a half-done file; `chunks` are the bytes that each chunk has."""

    url: str
    total_bytes: int | None = None
    validator: str | None = None
    chunks: list[int] = field(default_factory=list)

    @property
    def done_bytes(self) -> int:
        """Bytes on the disk."""
        return sum(self.chunks)

    def end_of(self, index: int) -> int:
        """Where a chunk ends, exclusive."""
        assert self.total_bytes is not None  # noqa: S101 - chunks exist only with a total
        return min((index + 1) * CHUNK_BYTES, self.total_bytes)

    def start_of(self, index: int) -> int:
        """Where a chunk goes on."""
        return index * CHUNK_BYTES + self.chunks[index]


class Fetch:
    """Brings one URL to one path. `run` may be called again after a failure: it goes on."""

    def __init__(
        self,
        url: str,
        target: Path,
        *,
        sha256: str | None,
        expected_bytes: int | None,
        stopping: threading.Event,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        self._url = url
        self._target = target
        self._part = target.with_name(target.name + ".part")
        self._notes = target.with_name(target.name + ".part.json")
        self._sha256 = sha256.lower() if sha256 else None
        self._expected_bytes = expected_bytes
        self._stopping = stopping
        self._free_bytes = free_bytes
        self._progress = Progress(url=url)
        self._lock = threading.Lock()
        self._failure: BaseException | None = None

    @property
    def done_bytes(self) -> int:
        """Bytes that are here."""
        return self._progress.done_bytes

    @property
    def total_bytes(self) -> int | None:
        """Bytes that there are in all, when known."""
        return self._progress.total_bytes or self._expected_bytes

    def run(self) -> None:
        """Fetch, check, rename. Raises FetchFailed or Stopped."""
        self._check_url()
        self._progress = self._load()
        self._failure = None
        try:
            self._fetch()
            self._verify()
        except requests.RequestException as error:
            raise FetchFailed(f"The download broke off: {_cause(error)}") from error
        except OSError as error:
            raise FetchFailed(f"Can't write the file: {error}") from error
        finally:
            self._save()
        self._part.replace(self._target)
        self._notes.unlink(missing_ok=True)

    def discard(self) -> None:
        """Throw away what has come so far."""
        self._part.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)
        self._progress = Progress(url=self._url)

    def _check_url(self) -> None:
        scheme = urlsplit(self._url).scheme
        if scheme not in {"http", "https"}:
            raise FetchFailed("The download's URL isn't http(s).", is_final=True)
        if scheme == "http" and not self._sha256:
            raise FetchFailed("Without a checksum, only https is safe.", is_final=True)

    def _fetch(self) -> None:
        """Bring all bytes to the part file."""
        progress = self._progress
        if progress.chunks and progress.done_bytes == progress.total_bytes:
            return
        with requests.Session() as session:
            index = self._next_unfinished(0)
            response = self._request(session, index)
            if response.status_code == 200 and progress.validator and progress.chunks:
                # Not the file that the part is of: begin again, with ranges if it can.
                response.close()
                self.discard()
                index = 0
                response = self._request(session, None)
            with response:
                self._check_answer(response)
                if response.status_code == 206:
                    self._fetch_ranges(session, response, index or 0)
                else:
                    self._fetch_whole(response)

    def _request(self, session: requests.Session, index: int | None) -> requests.Response:
        """Ask for the rest of one chunk; of the first where nothing is known yet."""
        progress = self._progress
        start, end = 0, CHUNK_BYTES
        if index is not None and progress.chunks:
            start, end = progress.start_of(index), progress.end_of(index)
        headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        if progress.validator:
            headers["If-Range"] = progress.validator
        response = session.get(
            self._url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)
        )
        is_downgraded = self._url.startswith("https:") and not response.url.startswith("https:")
        if is_downgraded:
            response.close()
            raise FetchFailed("The download was redirected from https to http.", is_final=True)
        return response

    def _check_answer(self, response: requests.Response) -> None:
        status = response.status_code
        if status in {200, 206}:
            return
        if status == 416:
            self.discard()
            raise FetchFailed("The file's size has changed.")
        is_final = 400 <= status < 500 and status not in {408, 425, 429}
        raise FetchFailed(f"The server answered {status}.", is_final=is_final)

    def _fetch_ranges(
        self, session: requests.Session, first: requests.Response, index: int
    ) -> None:
        """The rest in parallel, beginning with the answer that is already coming."""
        start, total = _content_range(first)
        progress = self._progress
        if not progress.chunks:
            self._check_size(total)
            progress.total_bytes = total
            progress.validator = _validator(first)
            progress.chunks = [0] * max(1, -(-total // CHUNK_BYTES))
        if total != progress.total_bytes or start != progress.start_of(index):
            self.discard()
            raise FetchFailed("The server sent another range than it was asked for.")
        self._check_disk(total - progress.done_bytes)
        todo = [
            number
            for number in range(len(progress.chunks))
            if number != index and progress.start_of(number) < progress.end_of(number)
        ]
        descriptor = os.open(self._part, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._run_workers(descriptor, first, index, todo)
        finally:
            os.close(descriptor)
        if self._failure is not None:
            raise self._failure

    def _run_workers(
        self, descriptor: int, first: requests.Response, index: int, todo: list[int]
    ) -> None:
        todo.reverse()
        workers = [
            threading.Thread(
                target=self._work, args=(descriptor, todo), name="download", daemon=True
            )
            for _ in range(min(CONNECTIONS - 1, len(todo)))
        ]
        for worker in workers:
            worker.start()
        try:
            self._copy_chunk(descriptor, first, index)
        except Exception as error:  # noqa: BLE001 - kept, and raised when the others are done
            self._fail(error)
        self._work(descriptor, todo)
        for worker in workers:
            worker.join()

    def _work(self, descriptor: int, todo: list[int]) -> None:
        """Take chunks until none is left or one has failed."""
        try:
            with requests.Session() as session:
                while self._failure is None:
                    with self._lock:
                        if not todo:
                            return
                        index = todo.pop()
                    with self._request(session, index) as response:
                        self._check_part(response, index)
                        self._copy_chunk(descriptor, response, index)
        except Exception as error:  # noqa: BLE001 - the thread's edge: `_run_workers` raises it
            self._fail(error)

    def _check_part(self, response: requests.Response, index: int) -> None:
        self._check_answer(response)
        wanted = (self._progress.start_of(index), self._progress.total_bytes)
        if response.status_code != 206 or _content_range(response) != wanted:
            raise FetchFailed("The file changed on the server during the download.")

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failure = self._failure or error

    def _copy_chunk(self, descriptor: int, response: requests.Response, index: int) -> None:
        progress = self._progress
        end = progress.end_of(index)
        for piece in response.iter_content(PIECE_BYTES):
            if self._stopping.is_set():
                raise Stopped
            if self._failure is not None:
                return
            position = progress.start_of(index)
            if position + len(piece) > end:
                raise FetchFailed("The server sent more than it was asked for.")
            _write(descriptor, piece, position)
            progress.chunks[index] += len(piece)
        if progress.start_of(index) < end:
            raise FetchFailed("The server closed the connection early.")

    def _fetch_whole(self, response: requests.Response) -> None:
        """From a server that knows no ranges: all of it, from the start."""
        self.discard()
        progress = self._progress
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
        if total is not None:
            self._check_size(total)
        known = total if total is not None else self._expected_bytes
        self._check_disk(known or 0)
        received = 0
        with self._part.open("wb") as file:
            for piece in response.iter_content(PIECE_BYTES):
                if self._stopping.is_set():
                    raise Stopped
                received += len(piece)
                if known is not None and received > known:
                    raise FetchFailed("The file is longer than promised.", is_final=True)
                file.write(piece)
                progress.total_bytes, progress.chunks = known, [received]
                if received % (64 * CHUNK_BYTES) < len(piece):
                    self._check_disk(0)
        if known is not None and received < known:
            raise FetchFailed("The server closed the connection early.")
        progress.total_bytes, progress.chunks = received, [received]

    def _check_size(self, total: int) -> None:
        if self._expected_bytes is not None and total != self._expected_bytes:
            raise FetchFailed(
                f"The file has {total} bytes, {self._expected_bytes} were promised.",
                is_final=True,
            )

    def _check_disk(self, needed: int) -> None:
        free = self._free_bytes(self._target.parent)
        if needed + DISK_MARGIN_BYTES > free:
            raise FetchFailed(
                f"Not enough disk space: {needed} bytes needed, {free} free in "
                f"{self._target.parent}.",
                is_final=True,
            )

    def _verify(self) -> None:
        """Check size and hash of what came. Raises WrongContent, and forgets it."""
        size = self._part.stat().st_size
        if self._expected_bytes is not None and size != self._expected_bytes:
            self.discard()
            raise WrongContent(f"Got {size} bytes, {self._expected_bytes} were promised.")
        if self._sha256 is None:
            return
        digest = hashlib.sha256()
        with self._part.open("rb") as file:
            while block := file.read(1024 * 1024):
                if self._stopping.is_set():
                    raise Stopped
                digest.update(block)
            os.fsync(file.fileno())
        if digest.hexdigest() != self._sha256:
            self.discard()
            raise WrongContent("The file's SHA-256 isn't the promised one.")

    def _next_unfinished(self, first: int) -> int | None:
        progress = self._progress
        for index in range(first, len(progress.chunks)):
            if progress.start_of(index) < progress.end_of(index):
                return index
        return None

    def _load(self) -> Progress:
        """What an earlier run left, if it is of this URL and can be trusted to be one file."""
        try:
            progress = Progress(**json.loads(self._notes.read_text()))
            size = self._part.stat().st_size
        except (OSError, ValueError, TypeError):
            return Progress(url=self._url)
        # Without a validator or a hash, two halves of different files could be joined.
        is_safe = bool(progress.validator or self._sha256)
        has_ranges = progress.total_bytes is not None and len(progress.chunks) == max(
            1, -(-progress.total_bytes // CHUNK_BYTES)
        )
        if progress.url != self._url or not is_safe or not has_ranges or size == 0:
            return Progress(url=self._url)
        return progress

    def _save(self) -> None:
        if not self._part.exists():
            return
        with contextlib.suppress(OSError):
            temporary = self._notes.with_suffix(".tmp")
            temporary.write_text(json.dumps(asdict(self._progress)))
            temporary.replace(self._notes)

    def save_progress(self) -> None:
        """Note how far it is, for a start after a hard stop."""
        self._save()


def _write(descriptor: int, piece: bytes, position: int) -> None:
    view = memoryview(piece)
    while view:
        written = os.pwrite(descriptor, view, position)
        view, position = view[written:], position + written


def _content_range(response: requests.Response) -> tuple[int, int]:
    """Start and total of a 206."""
    try:
        unit, rest = response.headers["Content-Range"].split(" ", 1)
        span, total = rest.split("/")
        start = int(span.split("-")[0])
        if unit != "bytes":
            raise ValueError(unit)
        return start, int(total)
    except (KeyError, ValueError) as error:
        raise FetchFailed("The server's range makes no sense.") from error


def _validator(response: requests.Response) -> str | None:
    """What If-Range takes: a strong ETag, else the date of the last change."""
    tag = response.headers.get("ETag")
    if tag and not tag.startswith("W/"):
        return str(tag)
    changed: Any = response.headers.get("Last-Modified")
    return str(changed) if changed else None


def _cause(error: requests.RequestException) -> str:
    return " ".join(str(error).split())[:200]
