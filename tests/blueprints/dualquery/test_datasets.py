"""dualquery: CSV files in, tables with a preview out."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.config import Settings
from app.core.ids import uid_from_uuid
from tests.fixtures.accounts import Person
from tests.openapi import assert_matches_openapi
from tests.uploading import CSV, NOTES, csv_of, upload_to_aitip, upload_to_dualquery

FIELDS = {
    "_id", "id", "user_id", "name", "file_name", "row_count", "column_count", "file_size",
    "status", "preview_data", "uploaded_at",
}  # fmt: skip


def get(client: FlaskClient, person: Person, path: str) -> Any:
    return client.get(path, headers=person.headers("bearer-jwt"))


def counted(client: FlaskClient, person: Person) -> int:
    return int(get(client, person, "/api/auth/me").get_json()["datasets_count"])


def stored(settings: Settings) -> list[Path]:
    return [path for path in (settings.data_dir / "files").rglob("*") if path.is_file()]


class TestUpload:
    def test_answers_with_the_table_and_its_beginning(
        self, app: Flask, client: FlaskClient, owner: Person
    ) -> None:
        answer = upload_to_dualquery(client, owner)
        body = answer.get_json()

        assert answer.status_code == 201
        assert_matches_openapi(app, answer)
        assert set(body) == FIELDS
        assert body["_id"] == body["id"]
        assert re.fullmatch("[0-9a-f]{24}", body["id"])
        assert body["user_id"] == owner.uid
        assert (body["name"], body["file_name"]) == ("cities.csv", "cities.csv")
        assert (body["row_count"], body["column_count"]) == (2, 2)
        assert body["file_size"] == len(CSV)
        assert body["status"] == "ready"
        assert body["preview_data"] == {
            "headers": ["city", "people"],
            "rows": [["München", "1512491"], ["Köln; am Rhein", "1087863"]],
        }
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["uploaded_at"])
        assert counted(client, owner) == 1

    def test_the_preview_has_ten_rows_and_the_count_all(
        self, client: FlaskClient, owner: Person
    ) -> None:
        body = upload_to_dualquery(client, owner, csv_of(25_000)).get_json()

        assert body["row_count"] == 25_000
        assert [row[0] for row in body["preview_data"]["rows"]] == [str(at) for at in range(10)]

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "Dataset file is empty"),
            (b"\xef\xbb\xbf\r\n", "Dataset file is empty"),
            (b"a,b\n", "Dataset file is empty"),
            (b"a,b\n\xff\xfe,2\n", "File must be a valid CSV file"),
            (b"%PDF-1.7", "File must be a valid CSV file"),
            (b"PK\x03\x04", "File must be a valid CSV file"),
        ],
        ids=["empty", "blank", "a header alone", "no UTF-8", "a PDF", "a zip"],
    )
    def test_what_is_no_table_is_refused_and_nothing_is_kept(
        self, client: FlaskClient, owner: Person, settings: Settings, data: bytes, message: str
    ) -> None:
        answer = upload_to_dualquery(client, owner, data)

        assert (answer.status_code, answer.get_json()) == (400, {"detail": message})
        assert stored(settings) == []
        assert counted(client, owner) == 0

    def test_a_taken_name_gets_a_number(self, client: FlaskClient, owner: Person) -> None:
        names = [upload_to_dualquery(client, owner).get_json()["name"] for _ in range(3)]
        assert names == ["cities.csv", "cities (2).csv", "cities (3).csv"]

    def test_a_form_without_a_file_says_where_it_is_missing(
        self, client: FlaskClient, owner: Person
    ) -> None:
        who = owner.headers("bearer-jwt")
        form = {"content_type": "multipart/form-data", "data": {"other": "1"}}
        missing = client.post("/api/datasets/upload", headers=who, **form)  # type: ignore[arg-type]
        other = client.post("/api/datasets/upload", headers=who, json={})

        assert missing.status_code == other.status_code == 422
        [problem] = missing.get_json()["detail"]
        assert (problem["loc"], problem["type"]) == (["body", "file"], "missing")
        assert isinstance(other.get_json()["detail"], list)

    def test_a_file_over_the_limit_is_413(
        self, make_app: Callable[..., Flask], owner: Person, settings: Settings
    ) -> None:
        client = make_app(dataset_max_bytes=1000).test_client()
        answer = upload_to_dualquery(client, owner, csv_of(200))

        assert answer.status_code == 413
        assert isinstance(answer.get_json()["detail"], str)
        assert stored(settings) == []


class TestList:
    def test_is_a_plain_array_newest_first(
        self, app: Flask, client: FlaskClient, owner: Person
    ) -> None:
        for _ in range(3):
            upload_to_dualquery(client, owner)
        answer = get(client, owner, "/api/datasets")
        part = get(client, owner, "/api/datasets?limit=1&offset=1").get_json()

        assert_matches_openapi(app, answer)
        names = [one["name"] for one in answer.get_json()]
        assert names == ["cities (3).csv", "cities (2).csv", "cities.csv"]
        assert [one["name"] for one in part] == names[1:2]

    @pytest.mark.parametrize("query", ["limit=0", "limit=201", "offset=-1", "limit=x"])
    def test_refuses_impossible_parts(
        self, client: FlaskClient, owner: Person, query: str
    ) -> None:
        answer = get(client, owner, f"/api/datasets?{query}")
        assert answer.status_code == 422
        assert answer.get_json()["detail"][0]["loc"] == ["query", query.partition("=")[0]]


class TestOne:
    def test_its_owner_reads_and_deletes_it(
        self, app: Flask, client: FlaskClient, owner: Person, settings: Settings
    ) -> None:
        made = upload_to_dualquery(client, owner).get_json()
        path = f"/api/datasets/{made['id']}"
        found = get(client, owner, path)
        assert found.get_json() == made
        assert_matches_openapi(app, found)
        assert get(client, owner, f"/api/datasets/{made['id'].upper()}").status_code == 200

        gone = client.delete(path, headers=owner.headers("bearer-jwt"))
        assert (gone.status_code, gone.data) == (204, b"")
        assert get(client, owner, path).status_code == 404
        assert get(client, owner, path).get_json() == {"detail": "There is no such dataset."}
        assert counted(client, owner) == 0
        assert stored(settings) == []

    @pytest.mark.parametrize("dataset_id", ["0" * 24, "nonsense", "g" * 24, "1"])
    def test_an_id_of_nothing_is_404(
        self, client: FlaskClient, owner: Person, dataset_id: str
    ) -> None:
        path = f"/api/datasets/{dataset_id}"
        assert get(client, owner, path).status_code == 404
        assert client.delete(path, headers=owner.headers("bearer-jwt")).status_code == 404

    def test_to_others_it_is_not_there(
        self, client: FlaskClient, owner: Person, outsider: Person
    ) -> None:
        path = f"/api/datasets/{upload_to_dualquery(client, owner).get_json()['id']}"

        assert get(client, outsider, path).status_code == 404
        assert client.delete(path, headers=outsider.headers("bearer-jwt")).status_code == 404
        assert get(client, outsider, "/api/datasets").get_json() == []
        assert get(client, owner, path).status_code == 200


class TestBothDoors:
    def test_a_csv_of_one_is_seen_at_the_other(
        self, client: FlaskClient, owner: Person
    ) -> None:
        here = upload_to_dualquery(client, owner).get_json()
        there = upload_to_aitip(client, owner, csv_of(5), "five.csv").get_json()["data"]

        seen = get(client, owner, "/api/v1/datasets").get_json()["data"]
        assert {uid_from_uuid(one["id"]) for one in seen} == {
            here["id"], uid_from_uuid(there["id"]),
        }  # fmt: skip
        table = get(client, owner, f"/api/datasets/{uid_from_uuid(there['id'])}").get_json()
        assert table["preview_data"]["headers"] == ["id", "name"]
        assert (table["row_count"], table["status"]) == (5, "ready")

    def test_what_has_no_rows_is_no_table(self, client: FlaskClient, owner: Person) -> None:
        notes = upload_to_aitip(client, owner, NOTES, "notes.md").get_json()["data"]
        path = f"/api/datasets/{uid_from_uuid(notes['id'])}"

        assert get(client, owner, "/api/datasets").get_json() == []
        assert get(client, owner, path).status_code == 404
        assert client.delete(path, headers=owner.headers("bearer-jwt")).status_code == 404
        assert get(client, owner, f"/api/v1/datasets/{notes['id']}").status_code == 200

    def test_a_table_that_is_not_read_yet_has_an_empty_preview(
        self, app: Flask, client: FlaskClient, owner: Person
    ) -> None:
        upload_to_aitip(client, owner, b'{"a": 1}\n{"a": 2}\n', "lines.jsonl")
        answer = get(client, owner, "/api/datasets")
        [table] = answer.get_json()

        assert_matches_openapi(app, answer)
        assert table["status"] == "processing"
        assert (table["row_count"], table["column_count"]) == (0, 0)
        assert table["preview_data"] == {"headers": [], "rows": []}


def test_a_cookie_alone_uploads_nothing(app: Flask, owner: Person, settings: Settings) -> None:
    client = owner.signed_in(app.test_client())
    body = {"file": (io.BytesIO(CSV), "a.csv")}

    assert client.post("/api/datasets/upload", data=body).status_code == 400
    assert stored(settings) == []
