"""What the doors to datasets share: taking a file, handing it out, deleting it."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from functools import partial

import redis
from flask import Response, current_app, request

from app.core.clock import utc_now
from app.core.datasets.index_file import IndexReader
from app.core.domain.errors import DomainError, NotFound
from app.core.queue import DATASETS, INDEX_DATASET_TASK, INDEX_TIMEOUT_SECONDS
from app.core.services import datasets
from app.core.services.datasets import DatasetRow, DatasetStatus, NewDataset
from app.web.auth import current_identity
from app.web.context import settings
from app.web.files import file_url, send_stored, storage
from app.web.live import LiveRuns
from app.web.transaction import reading, release, unit_of_work
from app.web.uploads import SentFile, one_upload_of, receive_file

log = logging.getLogger(__name__)

FILE_FIELD = "file"
BINARY = "application/octet-stream"
CONTENT_TYPES = {
    "csv": "text/csv", "json": "application/json", "jsonl": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet", "txt": "text/plain", "md": "text/markdown",
    "html": "text/html", "pdf": "application/pdf", "zip": "application/zip",
    "tar": "application/x-tar", "gz": "application/gzip",
}  # fmt: skip
FORMATS = tuple(CONTENT_TYPES)
_PLAIN_TEXTS = frozenset({"txt", "md", "json"})
_PAGES = frozenset({"html", "pdf"})
_BEGINNING_BYTES = 4000
_SUFFIXES = frozenset(f".{name}" for name in FORMATS)


def receive_dataset(
    *, must_be_csv: bool = False, suffix_when_taken: bool = False
) -> DatasetRow:
    """Make the file of the request's form a dataset of the caller's, and have it indexed.

    The form may hold `name` and `description` besides `file`. Raises what `receive_file` and
    the service raise; then nothing of the upload is left.
    """
    account_id = current_identity().account_id
    release()  # nothing is asked of the database while the file comes in
    files = storage()
    with one_upload_of(account_id):
        sent = receive_file(
            files, datasets.KIND, field=FILE_FIELD, max_bytes=settings().dataset_max_bytes,
            suffixes=_SUFFIXES, check=partial(_check_early, account_id, suffix_when_taken),
        )  # fmt: skip
        try:
            new = _inspected(sent, must_be_csv=must_be_csv, suffix_when_taken=suffix_when_taken)
            with unit_of_work() as session:
                row = datasets.add(session, account_id, new, now=utc_now())
        except BaseException:
            files.delete(sent.stored.name)
            raise
    _ring(row)
    return row


def _check_early(
    account_id: int, suffix_when_taken: bool, filename: str, fields: dict[str, str]
) -> None:
    datasets.check_new(
        reading(), account_id, name=_name(filename, fields),
        description=fields.get("description", ""), suffix_when_taken=suffix_when_taken,
    )  # fmt: skip
    release()


def _name(filename: str, fields: dict[str, str]) -> str:
    return fields.get("name", "").strip() or filename


def _inspected(sent: SentFile, *, must_be_csv: bool, suffix_when_taken: bool) -> NewDataset:
    return NewDataset(
        name=_name(sent.filename, sent.fields),
        description=sent.fields.get("description", ""),
        original_name=sent.filename,
        stored=sent.stored,
        inspected=datasets.inspect(
            storage(), sent.stored.name, sent.filename, must_be_csv=must_be_csv
        ),
        suffix_when_taken=suffix_when_taken,
    )


def _ring(row: DatasetRow) -> None:
    live: LiveRuns = current_app.extensions["weft_live"]
    try:
        live.queue.enqueue(
            INDEX_DATASET_TASK, str(row.id), queue=DATASETS,
            timeout_seconds=INDEX_TIMEOUT_SECONDS,
        )  # fmt: skip
    except redis.RedisError:
        log.warning("dataset %d waits for Redis to be indexed", row.id)


def delete_dataset(uid: str) -> None:
    """Forget one of the caller's datasets and its files. Raises NotFound."""
    with unit_of_work() as session:
        names = datasets.remove(session, current_identity().account_id, uid, now=utc_now())
    for name in names:
        # What cannot be deleted now is deleted later: the row says so.
        with contextlib.suppress(OSError, DomainError):
            storage().delete(name)


def send_dataset(row: DatasetRow, *, media_type: str = BINARY) -> Response:
    """A dataset's file as a download with ETag and Range. Raises NotFound."""
    release()
    return send_stored(
        row.file_name, filename=download_name(row), sha256=row.checksum, media_type=media_type
    )


def dataset_link(row: DatasetRow, *, expires_at: int) -> str:
    """A link that gives the file to whoever has it, until then (seconds since 1970)."""
    return file_url(row.file_name, filename=download_name(row), expires_at=expires_at)


def content_type_of(row: DatasetRow) -> str:
    """What the dataset's format is called on the web."""
    return CONTENT_TYPES.get(row.format, BINARY)


def download_name(row: DatasetRow) -> str:
    """What a browser saves the file as: its own name, as it was uploaded."""
    return row.original_name


def find_dataset(uid: str | None) -> DatasetRow:
    """One of the caller's datasets. Raises NotFound; `uid` is None for what is no id at all."""
    return datasets.find(reading(), current_identity().account_id, uid or "")


def beginning_of(row: DatasetRow) -> str | None:
    """The first lines of a document's text; None for what holds none, or is not read yet."""
    if row.format in _PLAIN_TEXTS:
        return _first_lines(row)
    return _first_passages(row) if row.format in _PAGES else None


def _first_lines(row: DatasetRow) -> str | None:
    try:
        with storage().open(row.file_name) as file:
            head = file.read(_BEGINNING_BYTES)
    except NotFound:
        return None
    text = head.decode("utf-8-sig", "ignore").replace("\0", "")
    return text if len(head) < _BEGINNING_BYTES else f"{text} …"


def _first_passages(row: DatasetRow) -> str | None:
    """As a child process has read them. An index that lies elsewhere is not fetched for this."""
    index = storage().local_path(row.index_file) if row.index_file else None
    if row.status != DatasetStatus.READY or index is None:
        return None
    with contextlib.suppress(sqlite3.DatabaseError):
        return "\n\n".join(one.text for one in IndexReader(index).beginning())
    return None


def wants_link() -> bool:
    """Whether the caller wants JSON and not the file: axios sends `*/*` along."""
    accept = request.accept_mimetypes
    return bool(accept) and not accept[BINARY] and bool(accept["application/json"])
