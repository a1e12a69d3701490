"""Files to upload, and how clients send them."""

from __future__ import annotations

import io
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.fixtures.accounts import Person

CSV = (
    b'\xef\xbb\xbfcity;people\r\nM\xc3\xbcnchen;1512491\r\n"K\xc3\xb6ln; am Rhein";1087863\r\n'
)
NOTES = b"# Notes\n\nThe tower is 330 metres tall.\n"


def csv_of(rows: int) -> bytes:
    """A table of so many rows."""
    return b"id,name\n" + b"".join(b"%d,row %d\n" % (at, at) for at in range(rows))


def upload_to_aitip(
    client: FlaskClient, person: Person, data: bytes = CSV, filename: str = "cities.csv",
    **fields: str,
) -> TestResponse:  # fmt: skip
    body: dict[str, Any] = {**fields, "file": (io.BytesIO(data), filename)}
    return client.post("/api/v1/datasets", data=body, headers=person.headers())


def upload_to_dualquery(
    client: FlaskClient, person: Person, data: bytes = CSV, filename: str = "cities.csv"
) -> TestResponse:
    body = {"file": (io.BytesIO(data), filename)}
    return client.post("/api/datasets/upload", data=body, headers=person.headers("bearer-jwt"))
