"""Forms with a large file: streamed to storage, or nothing at all."""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, g
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.test import EnvironBuilder

from app.blueprints import DIALECTS
from app.core.domain.errors import InvalidInput, RateLimited, TooLarge, Unavailable
from app.core.storage import Storage
from app.web import uploads
from app.web.dialects import DialectMap
from app.web.errors import BadRequestBody
from app.web.uploads import Check, SentFile, one_upload_of, plain_name, receive_file

DATA = bytes(range(256)) * 4000 + b"\r\n--x-but-no-boundary\r\n--"


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    named = f'; filename="{filename}"' if filename is not None else ""
    head = f'--x\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--x--\r\n"


class Trickle(io.RawIOBase):
    """A connection that gives a few bytes at a time and then ends."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data = io.BytesIO(data)
        self._step = step

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._data.read(min(self._step, len(buffer)))
        buffer[: len(found)] = found
        return len(found)


@pytest.fixture(scope="module")
def app() -> Flask:
    """An app that knows whose dialect a path is, and nothing else."""
    made = Flask(__name__)
    made.secret_key = "tests only"
    made.config["WTF_CSRF_FIELD_NAME"] = "csrf_token"
    made.extensions["weft_dialects"] = DialectMap(DIALECTS)
    return made


@pytest.fixture
def files(tmp_path: Path) -> Storage:
    return Storage("", tmp_path)


@pytest.fixture
def left(tmp_path: Path) -> Callable[[], list[Path]]:
    """What lies in the storage's folders."""
    return lambda: [path for path in (tmp_path / "files").rglob("*") if path.is_file()]


def receive(
    app: Flask, files: Storage, body: bytes, *, max_bytes: int = 2**21, step: int = 0,
    length: int | None = None, csrf_due: bool = False,
    content_type: str = "multipart/form-data; boundary=x",
    check: Check | None = None,
) -> SentFile:  # fmt: skip
    stream = Trickle(body, step) if step else io.BytesIO(body)
    environ = EnvironBuilder("/api/v1/datasets", method="POST").get_environ()
    environ["CONTENT_TYPE"] = content_type
    environ["CONTENT_LENGTH"] = str(len(body) if length is None else length)
    environ["wsgi.input"] = stream
    with app.request_context(environ):
        if csrf_due:
            g.csrf_due = True
        return receive_file(
            files,
            "things",
            field="file",
            max_bytes=max_bytes,
            suffixes=frozenset({".csv"}),
            check=check,
        )


@pytest.mark.parametrize("step", [0, 1009, 70_000])
def test_the_file_is_stored_as_it_was_sent_with_its_fields(
    app: Flask, files: Storage, step: int
) -> None:
    body = form(part("name", b"S\xc3\xa4les"), part("file", DATA, "a.CSV"), part("more", b"1"))
    sent = receive(app, files, body, step=step)

    assert b"".join(files.blocks(sent.stored.name)) == DATA
    assert sent.stored.sha256 == hashlib.sha256(DATA).hexdigest()
    assert sent.stored.size_bytes == len(DATA)
    assert sent.stored.name.endswith(".csv")
    assert (sent.filename, sent.fields) == ("a.CSV", {"name": "Säles", "more": "1"})


def test_a_name_has_no_say_in_where_the_file_lies(app: Flask, files: Storage) -> None:
    sent = receive(app, files, form(part("file", b"1", "../../etc/x.exe")))

    assert sent.filename == "x.exe"
    assert sent.stored.name.startswith("things/")
    assert "." not in sent.stored.name


@pytest.mark.parametrize(
    ("sent", "plain"),
    [
        ("a.csv", "a.csv"), ("C:\\data\\b.csv", "b.csv"), ("/etc/passwd", "passwd"),
        ("..", ".."), ("", "unnamed"), ("a/", "unnamed"), ("\x00\n\x1b[1m", "[1m"),
        ("a\u202egnp.csv", "agnp.csv"), (f"{'n' * 400}.parquet", f"{'n' * 247}.parquet"),
        ("x" * 400, "x" * 255),
    ],
)  # fmt: skip
def test_a_files_name_becomes_plain_text(sent: str, plain: str) -> None:
    assert plain_name(sent) == plain


BROKEN = {
    "cut in the file": form(part("file", DATA, "a.csv"))[:-5000],
    "cut before the end's line": form(part("file", DATA, "a.csv"))[:-6],
    "cut in a head": part("file", DATA, "a.csv") + b"--x\r\nContent-Dispo",
    "a head without a name": b"--x\r\nX: y\r\n\r\n1\r\n--x--\r\n",
    "a head that is no UTF-8": b'--x\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n1',
    "nothing": b"",
    "no form": b"a,b\n1,2\n",
}


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in BROKEN.items()])
def test_a_form_without_its_end_leaves_nothing(
    app: Flask, files: Storage, left: Any, body: bytes
) -> None:
    with pytest.raises(BadRequestBody):
        receive(app, files, body)

    assert left() == []


def test_a_sender_who_goes_away_leaves_nothing(app: Flask, files: Storage, left: Any) -> None:
    body = form(part("file", DATA, "a.csv"))
    with pytest.raises(ClientDisconnected):
        receive(app, files, body[:-9000], length=len(body), step=4096)

    assert left() == []


def test_a_sender_who_falls_silent_is_gone(
    app: Flask, files: Storage, left: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gevent

    class Silent(Trickle):
        def readinto(self, buffer: Any) -> int:
            return super().readinto(buffer) or gevent.sleep(3600) or 0

    monkeypatch.setattr(uploads, "STALLED_SECONDS", 0.01)
    monkeypatch.setattr(f"{__name__}.Trickle", Silent)
    body = form(part("file", DATA, "a.csv"))
    with pytest.raises(ClientDisconnected):
        receive(app, files, body[:-9000], length=len(body), step=4096)

    assert left() == []


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (form(part("file", bytes(2000), "a.csv")), None),
        (b"", 10_000_000),  # refused before it is read
        (form(part("note", bytes(70_000)), part("file", b"1", "a.csv")), None),
        (form(part("file", b"1", "a.csv"), part("note", bytes(70_000))), None),
        (form(*[part("a", b"1")] * 30), None),
        (bytes(1_200_000), None),  # no boundary in sight
        (b"--x\r\n" + b"A: b\r\n" * 200_000, None),  # a head without end
    ],
    ids=["file", "length", "text before", "text after", "parts", "no boundary", "head"],
)
def test_too_much_of_anything_is_refused_and_leaves_nothing(
    app: Flask, files: Storage, left: Any, body: bytes, length: int | None
) -> None:
    with pytest.raises((TooLarge, RequestEntityTooLarge)):
        receive(
            app, files, body, length=length, max_bytes=2_000_000 if len(body) > 10**6 else 1000
        )

    assert left() == []


def test_a_file_of_just_the_limit_is_taken(app: Flask, files: Storage) -> None:
    sent = receive(app, files, form(part("file", bytes(1000), "a.csv")), max_bytes=1000)

    assert sent.stored.size_bytes == 1000


@pytest.mark.parametrize(
    ("body", "options", "status"),
    [
        (form(part("name", b"x")), {}, 400),
        (form(part("file", b"", "")), {}, 400),
        (form(part("file", b"1", "a"), part("file", b"2", "b")), {}, 400),
        (form(part("note", b"\xff"), part("file", b"1", "a")), {}, 400),
        (form(part("file", b"1", "a")), {"content_type": "text/csv"}, 415),
        (form(part("file", b"1", "a")), {"content_type": "multipart/form-data"}, 400),
    ],
    ids=["no file", "none chosen", "two files", "no UTF-8", "no form", "no boundary"],
)  # fmt: skip
def test_what_is_no_form_with_one_file_is_refused(
    app: Flask, files: Storage, left: Any, body: bytes, options: dict[str, str], status: int
) -> None:
    with pytest.raises(BadRequestBody) as refused:
        receive(app, files, body, **options)

    assert refused.value.status == status
    assert left() == []


@pytest.mark.parametrize(
    "body",
    [form(part("file", DATA, "a.csv"), part("csrf_token", b"x")), form(part("a", b"1"))],
    ids=["too late", "none"],
)
def test_a_browsers_file_is_not_taken_before_its_token(
    app: Flask, files: Storage, left: Any, body: bytes
) -> None:
    with pytest.raises(InvalidInput, match="CSRF"):
        receive(app, files, body, csrf_due=True)

    assert left() == []


def test_a_full_disk_is_said_so(
    app: Flask, files: Storage, left: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("app.core.storage._let_others_run", is_full)
    with pytest.raises(Unavailable, match="disk is full"):
        receive(app, files, form(part("file", DATA, "a.csv")))

    assert left() == []


def test_some_of_the_disk_is_left_to_others(
    app: Flask, files: Storage, left: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = iter([uploads.RESERVED_BYTES + 2**40, uploads.RESERVED_BYTES - 1])
    monkeypatch.setattr(files, "free_bytes", lambda: next(free))
    monkeypatch.setattr(uploads, "_LOOK_BYTES", 100_000)
    with pytest.raises(Unavailable, match="disk is full"):
        receive(app, files, form(part("file", DATA, "a.csv")))

    monkeypatch.setattr(files, "free_bytes", lambda: uploads.RESERVED_BYTES + len(DATA))
    with pytest.raises(Unavailable, match="disk is full"):
        receive(app, files, b"", length=len(DATA) + 1)
    assert left() == []


def test_a_file_is_checked_by_what_is_known_before_it_comes(
    app: Flask, files: Storage, left: Any
) -> None:
    asked: list[tuple[str, dict[str, str]]] = []

    def check(filename: str, fields: dict[str, str]) -> None:
        asked.append((filename, dict(fields)))
        raise InvalidInput("No.")

    with pytest.raises(InvalidInput):
        receive(
            app, files, form(part("a", b"1"), part("file", b"2", "x.csv"), part("b", b"3")),
            check=check,
        )  # fmt: skip

    assert asked == [("x.csv", {"a": "1"})]
    assert left() == []


def test_an_account_uploads_a_few_files_at_once_and_no_more() -> None:
    def nested(depth: int) -> None:
        if depth:
            with one_upload_of(7), one_upload_of(8):
                nested(depth - 1)

    with pytest.raises(RateLimited):
        nested(uploads.MOST_AT_ONCE + 1)
    nested(uploads.MOST_AT_ONCE)
