"""Forms with a large file in them: it goes straight to storage, hashed on its way.

Nothing of it lies in memory or in a temporary file, and what is broken off leaves nothing
behind. Routes that read their form like this are listed in `STREAMED`: nobody else may
touch the body before them, which is why the CSRF token of a browser's form is looked at
here, as soon as it has come and before the file does.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, NoReturn

import gevent
from flask import current_app, g, request
from flask_wtf.csrf import CSRFError, validate_csrf
from werkzeug.exceptions import ClientDisconnected
from werkzeug.sansio.multipart import (
    Data,
    Epilogue,
    Event,
    Field,
    File,
    MultipartDecoder,
    NeedData,
)
from wtforms import ValidationError

from app.core.domain.errors import InvalidInput, RateLimited, TooLarge, Unavailable
from app.core.storage import Storage, StoredFile
from app.web.dialects import Violation, dialect_map
from app.web.errors import BadRequestBody

STREAMED: set[str] = set()
"""Endpoints that read their form with `receive_file`."""

FORM_TYPE = "multipart/form-data"
MOST_PARTS = 20
MOST_FIELD_BYTES = 64 * 1024  # of all text fields together
MOST_AT_ONCE = 4  # of one account in one web process
FORM_BYTES = 256 * 1024  # what surrounds the file: fields, heads of parts, boundaries
RESERVED_BYTES = 256 * 2**20  # of the disk, whatever is uploaded
STALLED_SECONDS = 60.0  # a sender who is silent for so long is gone
MOST_NAME = 255
_READ_BYTES = 64 * 1024
_BUFFER_BYTES = 2**20  # the decoder holds so much at most, whatever is sent
_LOOK_BYTES = 16 * 2**20  # how often the disk is looked at
_FULL_DISK = "The hub's disk is full. Tell its admin."
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

Check = Callable[[str, dict[str, str]], None]

_under_way: Counter[int] = Counter()


@dataclass(frozen=True, slots=True)
class SentFile:
    """A file that has been stored, its name as the sender calls it, and the other fields."""

    stored: StoredFile
    filename: str
    fields: dict[str, str]


@contextmanager
def one_upload_of(account_id: int) -> Iterator[None]:
    """Around an upload. Raises RateLimited when the account has several under way."""
    if _under_way[account_id] >= MOST_AT_ONCE:
        raise RateLimited(
            f"{MOST_AT_ONCE} uploads of this account are under way. Wait for one to end.",
            retry_after_seconds=10,
        )
    _under_way[account_id] += 1
    try:
        yield
    finally:
        _under_way[account_id] -= 1
        if not _under_way[account_id]:
            del _under_way[account_id]


def receive_file(
    files: Storage,
    kind: str,
    *,
    field: str,
    max_bytes: int,
    suffixes: frozenset[str],
    check: Check | None = None,
) -> SentFile:
    """Store the file in the request's form; who calls this deletes it if he can't use it.

    `suffixes`: endings that the stored name may take over from the sender's. `check` is asked
    before the file is taken, with its name and the fields that have come. Raises what it raises,
    BadRequestBody for what is no such form, TooLarge, InvalidInput without a CSRF token
    where one is due, Unavailable when the disk is full, and ClientDisconnected.
    """
    if request.mimetype != FORM_TYPE:
        _refuse_media_type()
    if (request.content_length or 0) > max_bytes + FORM_BYTES:
        raise TooLarge(f"The file is larger than {max_bytes} bytes.", field=field)
    request.max_content_length = max_bytes + FORM_BYTES
    _check_room(files, request.content_length or 0)
    form = _Form(files, kind, field, max_bytes, suffixes, check)
    try:
        form.read()
    except BaseException as error:
        if form.stored is not None:
            files.delete(form.stored.name)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise Unavailable(_FULL_DISK) from error
        raise
    if form.stored is None:
        _refuse(field, "Send the file.", "missing")
    return SentFile(form.stored, form.filename, form.fields)


class _Form:
    """A form while it is read."""

    def __init__(
        self,
        files: Storage,
        kind: str,
        field: str,
        max_bytes: int,
        suffixes: frozenset[str],
        check: Check | None,
    ) -> None:
        self._files = files
        self._kind = kind
        self._field = field
        self._max_bytes = max_bytes
        self._suffixes = suffixes
        self._check = check
        self._field_bytes = 0
        self._events = _events()
        self.fields: dict[str, str] = {}
        self.filename = ""
        self.stored: StoredFile | None = None

    def read(self) -> None:
        """Part by part, until the form's own end."""
        for event in self._events:
            if isinstance(event, File) and event.name == self._field and event.filename:
                self._store(event)
            elif isinstance(event, Field):
                self.fields[event.name or ""] = self._text(event)
        _check_token(self.fields)

    def _store(self, part: File) -> None:
        if self.stored is not None:
            _refuse(self._field, "Send one file at a time.", "too_many_files")
        _check_token(self.fields)
        self.filename = plain_name(part.filename)
        if self._check is not None:
            self._check(self.filename, self.fields)
        ending = f".{self.filename.rpartition('.')[2].lower()}"
        self.stored = self._files.put(
            self._kind, self._file_blocks(), max_bytes=self._max_bytes,
            suffix=ending if ending in self._suffixes else "",
        )  # fmt: skip

    def _file_blocks(self) -> Iterator[bytes]:
        unchecked = 0
        for block in self._blocks():
            unchecked += len(block)
            if unchecked > _LOOK_BYTES:
                _check_room(self._files, 0)
                unchecked = 0
            yield block

    def _blocks(self) -> Iterator[bytes]:
        """The data of the part that has begun."""
        for event in self._events:
            if isinstance(event, Data):
                if event.data:
                    yield event.data
                if not event.more_data:
                    return

    def _text(self, part: Field) -> str:
        value = b""
        for block in self._blocks():
            self._field_bytes += len(block)
            if self._field_bytes > MOST_FIELD_BYTES:
                raise TooLarge("The form's texts are too long.", field=part.name)
            value += block
        try:
            return value.decode()
        except UnicodeDecodeError:
            _refuse(part.name or "", "Send text as UTF-8.", "unicode")


def _events() -> Iterator[Event]:
    """What the request's body says, as it arrives. The stream ends with the closing line."""
    boundary = request.mimetype_params.get("boundary", "").encode("utf-8", "replace")
    if not boundary or len(boundary) > 200:
        _refuse("", "The form has no boundary.", "multipart")
    decoder = MultipartDecoder(boundary, _BUFFER_BYTES, max_parts=MOST_PARTS)
    stream = request.stream
    while True:
        try:
            event = decoder.next_event()
        except ValueError:
            _refuse("", "This is no whole multipart form.", "multipart")
        if isinstance(event, NeedData):
            decoder.receive_data(_read(stream) or None)
            continue
        yield event
        if isinstance(event, Epilogue):
            return


def _read(stream: IO[bytes]) -> bytes:
    """The next bytes, b"" at the end. Raises ClientDisconnected before it."""
    try:
        with gevent.Timeout(STALLED_SECONDS, ClientDisconnected):
            return stream.read(_READ_BYTES)
    except OSError as error:  # of a body in chunks that breaks off, and of broken sockets
        raise ClientDisconnected from error


def _check_room(files: Storage, coming_bytes: int) -> None:
    """Uploads leave the database and everything else some of the disk."""
    free = files.free_bytes()
    if free is not None and free < coming_bytes + RESERVED_BYTES:
        raise Unavailable(_FULL_DISK)


def _check_token(fields: dict[str, str]) -> None:
    """A browser's cookie needs the token of a page of ours, in front of the file."""
    if not g.get("csrf_due"):
        return
    try:
        validate_csrf(fields.get(current_app.config["WTF_CSRF_FIELD_NAME"]))
    except (ValidationError, CSRFError):
        raise InvalidInput("The CSRF token is missing or wrong. Reload the page.") from None
    g.csrf_due = False


def plain_name(sent: str) -> str:
    """A file's name as text: no folders, nothing invisible, 255 characters at most."""
    name = sent.replace("\\", "/").rpartition("/")[2]
    name = "".join(char for char in name if char.isprintable()).strip()
    stem, dot, ending = name.rpartition(".")
    if len(name) > MOST_NAME and dot and len(ending) <= 10:
        name = f"{stem[: MOST_NAME - len(ending) - 1]}.{ending}"
    return name[:MOST_NAME] or "unnamed"


def _refuse_media_type() -> NoReturn:
    dialect = dialect_map().of_path(request.path)
    violation = Violation(("body",), f"Send the file as {FORM_TYPE}.", "media_type")
    status = dialect.media_type_status if dialect else 415
    raise BadRequestBody(status, "unsupported_media_type", (violation,))


def _refuse(field: str, message: str, rule: str) -> NoReturn:
    dialect = dialect_map().of_path(request.path)
    location = ("body", field) if field else ("body",)
    status = dialect.invalid_status if dialect else 400
    raise BadRequestBody(status, "invalid", (Violation(location, message, rule),))
