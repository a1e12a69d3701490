"""Signed links to stored files."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.web.files import file_url, storage

CONTENT = b"0123456789" * 10


@pytest.fixture
def path(app: Flask) -> str:
    """The path of a link to a file of a hundred bytes."""
    return make_link(app)


def make_link(app: Flask, *, seconds: int = 60) -> str:
    with app.test_request_context():
        name = storage().put_bytes("things", CONTENT, suffix=".csv").name
        link = urlsplit(file_url(name, filename="müll & mehr.csv", seconds=seconds))
    return f"{link.path}?{link.query}"


def test_gives_the_file_under_its_own_name(client: FlaskClient, path: str) -> None:
    answer = client.get(path, buffered=True)
    assert answer.data == CONTENT
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert "m%C3%BCll" in answer.headers["Content-Disposition"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize(
    ("wanted", "expected", "shown"),
    [
        ("bytes=0-9", CONTENT[:10], "bytes 0-9/100"),
        ("bytes=95-", CONTENT[95:], "bytes 95-99/100"),
        ("bytes=-5", CONTENT[-5:], "bytes 95-99/100"),
        ("bytes=90-1000", CONTENT[90:], "bytes 90-99/100"),
    ],
)
def test_gives_a_part(
    client: FlaskClient, path: str, wanted: str, expected: bytes, shown: str
) -> None:
    answer = client.get(path, headers={"Range": wanted}, buffered=True)
    assert answer.status_code == 206
    assert answer.data == expected
    assert answer.headers["Content-Range"] == shown
    assert answer.headers["Content-Length"] == str(len(expected))


def test_a_part_that_is_not_there_is_416(client: FlaskClient, path: str) -> None:
    assert client.get(path, headers={"Range": "bytes=200-"}).status_code == 416


def test_is_not_sent_again_to_who_has_it(client: FlaskClient, path: str) -> None:
    tag = client.get(path, buffered=True).headers["ETag"]
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 304


def test_an_old_link_opens_nothing(app: Flask, client: FlaskClient) -> None:
    assert client.get(make_link(app, seconds=-1)).status_code == 403


@pytest.mark.parametrize("cut", ["signature", "expires", "filename"])
def test_an_incomplete_link_opens_nothing(client: FlaskClient, path: str, cut: str) -> None:
    address, query = path.split("?")
    rest = "&".join(part for part in query.split("&") if not part.startswith(cut))
    assert client.get(f"{address}?{rest}").status_code == 403


def test_files_in_s3_come_through_the_hub(make_app: Callable[..., Flask], s3_url: str) -> None:
    app = make_app(storage_url=s3_url)
    client = app.test_client()
    path = make_link(app)
    assert client.get(path, buffered=True).data == CONTENT
    assert client.get(path, headers={"Range": "bytes=95-"}, buffered=True).data == CONTENT[95:]
