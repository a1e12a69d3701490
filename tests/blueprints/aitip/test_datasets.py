"""aitip: datasets, from upload to download."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from app.config import Settings
from app.core.queue import DATASETS, INDEX_DATASET_TASK
from tests.fixtures.accounts import Person
from tests.openapi import assert_matches_openapi
from tests.uploading import CSV, NOTES, csv_of, upload_to_aitip

FIELDS = {
    "id", "name", "description", "original_name", "format", "size_bytes", "size_readable",
    "checksum", "status", "status_message", "row_count", "column_count", "used_in_research",
    "created_at", "updated_at",
}  # fmt: skip
NOBODYS = "00000000-0000-8000-8000-000000000000"


@pytest.fixture
def made(client: FlaskClient, owner: Person) -> dict[str, Any]:
    """A dataset of the owner's."""
    return upload_to_aitip(client, owner).get_json()["data"]


def stored(settings: Settings) -> list[Path]:
    return [path for path in (settings.data_dir / "files").rglob("*") if path.is_file()]


def get(client: FlaskClient, person: Person, path: str, **headers: str) -> Any:
    return client.get(path, headers={**person.headers(), **headers}, buffered=True)


class TestUpload:
    def test_answers_with_the_dataset(
        self, app: Flask, client: FlaskClient, owner: Person, settings: Settings
    ) -> None:
        answer = upload_to_aitip(client, owner, name="Cities", description="Of Germany")
        data = answer.get_json()["data"]

        assert answer.status_code == 201
        assert answer.get_json()["success"] is True
        assert_matches_openapi(app, answer)
        assert set(data) == FIELDS
        assert data["name"] == "Cities"
        assert data["description"] == "Of Germany"
        assert data["original_name"] == "cities.csv"
        assert (data["format"], data["size_bytes"]) == ("csv", len(CSV))
        assert data["checksum"] == hashlib.sha256(CSV).hexdigest()
        assert data["size_readable"] == f"{len(CSV)} B"
        assert data["created_at"].endswith("Z")
        [file] = stored(settings)
        assert file.read_bytes() == CSV

    def test_a_worker_is_told(self, client: FlaskClient, owner: Person, redis_url: str) -> None:
        upload_to_aitip(client, owner)

        queue = Queue(DATASETS, connection=Redis.from_url(redis_url), serializer=JSONSerializer)
        assert [job.func_name for job in queue.jobs] == [INDEX_DATASET_TASK]

    @pytest.mark.parametrize("name", [None, "", "  "])
    def test_the_name_is_the_files_when_none_is_given(
        self, client: FlaskClient, owner: Person, name: str | None
    ) -> None:
        fields = {} if name is None else {"name": name}
        answer = upload_to_aitip(client, owner, filename="../up/cities.csv", **fields)

        assert answer.get_json()["data"]["name"] == "cities.csv"
        assert answer.get_json()["data"]["original_name"] == "cities.csv"

    @pytest.mark.parametrize(
        ("data", "filename", "format"),
        [
            (CSV, "a.bin", "csv"), (NOTES, "a.md", "md"), (NOTES, "a.csv.txt", "txt"),
            (b'{"a": 1}\n{"a": 2}\n', "a.json", "jsonl"), (b'[{"a": 1}]', "a", "json"),
            (b"PAR1 and so on", "a.csv", "parquet"), (b"%PDF-1.7 x", "a.txt", "pdf"),
            (b"\x1f\x8b\x08 x", "a.csv", "gz"), (b"PK\x03\x04 x", "a.tar", "zip"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )  # fmt: skip
    def test_the_format_is_what_the_content_says(
        self, client: FlaskClient, owner: Person, data: bytes, filename: str, format: str
    ) -> None:
        answer = upload_to_aitip(client, owner, data, filename)
        assert answer.get_json()["data"]["format"] == format

    def test_a_taken_name_is_a_conflict_and_nothing_is_kept(
        self, client: FlaskClient, owner: Person, other: Person, settings: Settings
    ) -> None:
        upload_to_aitip(client, owner)
        again = upload_to_aitip(client, owner, csv_of(3))

        assert again.status_code == 409
        assert again.get_json()["error"]["code"] == "Conflict"
        assert "cities.csv" in again.get_json()["error"]["message"]
        assert len(stored(settings)) == 1
        assert upload_to_aitip(client, other).status_code == 201

    @pytest.mark.parametrize(
        ("data", "filename", "fields"),
        [
            (b"", "a.csv", {}), (b"\xef\xbb\xbf \n", "a.csv", {}), (b"\x00\x01\x02" * 99, "a", {}),
            (CSV, "a.csv", {"name": "x" * 256}), (CSV, "a.csv", {"description": "x" * 1001}),
        ],
        ids=["empty", "blank", "of no format", "a long name", "a long description"],
    )  # fmt: skip
    def test_what_cannot_be_taken_is_refused_and_nothing_is_kept(
        self, client: FlaskClient, owner: Person, settings: Settings, data: bytes, filename: str,
        fields: dict[str, str],
    ) -> None:  # fmt: skip
        answer = upload_to_aitip(client, owner, data, filename, **fields)

        assert answer.status_code == 400
        assert answer.get_json()["success"] is False
        assert answer.get_json()["error"]["code"] == "Bad Request"
        assert stored(settings) == []
        assert get(client, owner, "/api/v1/datasets").get_json()["meta"]["total"] == 0

    def test_a_file_over_the_limit_is_413_and_nothing_is_kept(
        self, make_app: Callable[..., Flask], owner: Person, settings: Settings
    ) -> None:
        client = make_app(dataset_max_bytes=1000).test_client()
        answer = upload_to_aitip(client, owner, csv_of(200))

        assert answer.status_code == 413
        assert answer.get_json()["error"]["code"] == "Request Entity Too Large"
        assert stored(settings) == []
        assert upload_to_aitip(client, owner).status_code == 201

    def test_other_bodies_are_refused(self, client: FlaskClient, owner: Person) -> None:
        def send(**body: Any) -> tuple[int, str]:
            answer = client.post("/api/v1/datasets", headers=owner.headers(), **body)
            return answer.status_code, answer.get_json()["error"]["message"]

        assert send(json={"name": "x"})[0] == 415
        assert send(data={"name": "x", "a": (io.BytesIO(b"1"), "a.csv")}) == (
            400, "file: Send the file.",
        )  # fmt: skip
        assert send(data={"file": "no file"}, content_type="multipart/form-data")[0] == 400


class TestList:
    def test_pages_are_counted(self, app: Flask, client: FlaskClient, owner: Person) -> None:
        for name in ("a", "b", "c"):
            upload_to_aitip(client, owner, name=name)

        answer = get(client, owner, "/api/v1/datasets?page=2&page_size=2")

        assert_matches_openapi(app, answer)
        assert [one["name"] for one in answer.get_json()["data"]] == ["a"]
        assert answer.get_json()["meta"] == {
            "page": 2, "page_size": 2, "total": 3, "total_page": 2,
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("query", "names"),
        [
            ("", ["Beta", "alpha_1", "Gamma"]),
            ("sort_order=asc", ["Gamma", "alpha_1", "Beta"]),
            ("sort_by=name&sort_order=asc", ["alpha_1", "Beta", "Gamma"]),
            ("sort_by=name", ["Gamma", "Beta", "alpha_1"]),
            ("sort_by=size_bytes", ["Beta", "Gamma", "alpha_1"]),
            ("sort_by=size_bytes&sort_order=asc", ["alpha_1", "Gamma", "Beta"]),
            ("format=csv", ["Beta", "Gamma"]),
            ("status=processing", ["Beta", "alpha_1", "Gamma"]),
            ("status=deleted", []),
            ("keyword=ALPHA", ["alpha_1"]),
            ("keyword=_", ["alpha_1"]),
            ("keyword=%25", []),
            ("keyword=rivers", ["Gamma"]),
            ("format=csv&keyword=bet", ["Beta"]),
        ],
    )
    def test_is_filtered_and_sorted(
        self, client: FlaskClient, owner: Person, query: str, names: list[str]
    ) -> None:
        upload_to_aitip(client, owner, name="Gamma", description="About Rivers")
        upload_to_aitip(client, owner, NOTES, "a.md", name="alpha_1")
        upload_to_aitip(client, owner, csv_of(50), name="Beta")

        answer = get(client, owner, f"/api/v1/datasets?{query}")

        assert [one["name"] for one in answer.get_json()["data"]] == names
        assert answer.get_json()["meta"]["total"] == len(names)

    @pytest.mark.parametrize(
        "query",
        ["page=0", "page_size=0", "page_size=101", "status=x", "format=exe", "sort_by=id",
         "sort_order=up", "keyword=" + "x" * 256],
    )  # fmt: skip
    def test_refuses_what_it_does_not_know(
        self, client: FlaskClient, owner: Person, query: str
    ) -> None:
        answer = get(client, owner, f"/api/v1/datasets?{query}")
        assert answer.status_code == 400
        assert answer.get_json()["error"]["code"] == "Bad Request"


class TestOne:
    def test_its_owner_reads_changes_and_deletes_it(
        self, app: Flask, client: FlaskClient, owner: Person, made: Any, settings: Settings
    ) -> None:
        path = f"/api/v1/datasets/{made['id']}"
        assert get(client, owner, path).get_json()["data"] == made

        body = {"name": "Towns", "description": "New", "used_in_research": False}
        changed = client.put(path, json=body, headers=owner.headers())
        assert_matches_openapi(app, changed)
        assert changed.get_json()["data"].items() >= body.items()
        assert client.put(path, json={}, headers=owner.headers()).get_json()[
            "data"
        ].items() >= (body.items())

        gone = client.delete(path, headers=owner.headers())
        assert gone.get_json() == {"success": True, "data": {"message": "Dataset deleted"}}
        assert_matches_openapi(app, gone)
        assert get(client, owner, path).status_code == 404
        assert client.delete(path, headers=owner.headers()).status_code == 404
        assert stored(settings) == []

    def test_a_taken_or_empty_name_is_refused(
        self, client: FlaskClient, owner: Person, made: Any
    ) -> None:
        upload_to_aitip(client, owner, name="taken")
        path = f"/api/v1/datasets/{made['id']}"

        def rename(name: str) -> int:
            return client.put(path, json={"name": name}, headers=owner.headers()).status_code

        assert rename("taken") == 409
        assert rename("") == rename("  ") == rename("x" * 256) == 400
        assert rename(made["name"]) == 200

    @pytest.mark.parametrize("suffix", ["", "/download"])
    @pytest.mark.parametrize("dataset_id", [NOBODYS, "1", "x" * 24, "%20"])
    def test_an_id_of_nothing_is_404(
        self, client: FlaskClient, owner: Person, dataset_id: str, suffix: str
    ) -> None:
        answer = get(client, owner, f"/api/v1/datasets/{dataset_id}{suffix}")
        assert answer.status_code == 404
        assert answer.get_json()["error"]["code"] == "Not Found"

    def test_to_others_it_is_not_there(
        self, client: FlaskClient, outsider: Person, admin: Person, made: Any
    ) -> None:
        path = f"/api/v1/datasets/{made['id']}"
        for person in (outsider, admin):
            who = person.headers()
            assert get(client, person, path).status_code == 404
            assert get(client, person, f"{path}/download").status_code == 404
            assert client.put(path, json={"name": "x"}, headers=who).status_code == 404
            assert client.delete(path, headers=who).status_code == 404
            assert get(client, person, "/api/v1/datasets").get_json()["data"] == []


class TestDownload:
    def test_gives_the_file_under_its_own_name(
        self, app: Flask, client: FlaskClient, owner: Person, made: Any
    ) -> None:
        answer = get(client, owner, f"/api/v1/datasets/{made['id']}/download", Accept="*/*")

        assert answer.data == CSV
        assert_matches_openapi(app, answer)
        assert answer.headers["Content-Disposition"] == "attachment; filename=cities.csv"
        assert answer.headers["ETag"] == f'"{made["checksum"]}"'
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"]

    def test_goes_on_where_it_stopped(
        self, client: FlaskClient, owner: Person, made: Any
    ) -> None:
        path = f"/api/v1/datasets/{made['id']}/download"
        tag = f'"{made["checksum"]}"'

        rest = get(client, owner, path, **{"Range": "bytes=10-", "If-Range": tag})
        beyond = get(client, owner, path, Range="bytes=9999-")
        same = get(client, owner, path, **{"If-None-Match": tag})

        assert (rest.status_code, rest.data) == (206, CSV[10:])
        assert rest.headers["Content-Range"] == f"bytes 10-{len(CSV) - 1}/{len(CSV)}"
        assert (beyond.status_code, same.status_code) == (416, 304)
        assert beyond.get_json()["success"] is False

    def test_a_link_needs_no_credential_for_15_minutes(
        self, app: Flask, client: FlaskClient, owner: Person, made: Any
    ) -> None:
        answer = get(
            client, owner, f"/api/v1/datasets/{made['id']}/download", Accept="application/json"
        )
        link = answer.get_json()["data"]
        left = datetime.fromisoformat(link["expires_at"]) - datetime.now(UTC)
        parts = urlsplit(link["url"])
        opened = client.get(f"{parts.path}?{parts.query}", buffered=True)

        assert_matches_openapi(app, answer)
        assert (link["filename"], link["content_type"]) == ("cities.csv", "text/csv")
        assert timedelta(minutes=14) < left <= timedelta(minutes=15)
        assert opened.data == CSV
        assert opened.mimetype == "text/csv"
        assert "attachment" in opened.headers["Content-Disposition"]
        forged = parts.query.replace("filename=cities.csv", "filename=other.csv")
        assert client.get(f"{parts.path}?{forged}").status_code == 403

    def test_a_link_ends_with_its_dataset(
        self, client: FlaskClient, owner: Person, made: Any
    ) -> None:
        path = f"/api/v1/datasets/{made['id']}"
        link = get(client, owner, f"{path}/download", Accept="application/json").get_json()
        client.delete(path, headers=owner.headers())

        parts = urlsplit(link["data"]["url"])
        assert client.get(f"{parts.path}?{parts.query}").status_code == 404

    def test_who_takes_anything_gets_the_file(
        self, client: FlaskClient, owner: Person, made: Any
    ) -> None:
        path = f"/api/v1/datasets/{made['id']}/download"
        axios = get(client, owner, path, Accept="application/json, text/plain, */*")
        assert axios.data == CSV

    def test_hostile_names_stay_in_their_header(
        self, client: FlaskClient, owner: Person
    ) -> None:
        sent = upload_to_aitip(client, owner, filename='a"; x=y\u202egnp.csv').get_json()[
            "data"
        ]
        answer = get(client, owner, f"/api/v1/datasets/{sent['id']}/download")

        assert answer.status_code == 200
        assert "\n" not in answer.headers["Content-Disposition"]
        assert answer.headers["Content-Disposition"].startswith("attachment; ")


def test_archives_are_kept_as_they_are(client: FlaskClient, owner: Person) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("../../evil.csv", "a,b\n1,2\n")
    sent = upload_to_aitip(client, owner, out.getvalue(), "a.zip").get_json()["data"]

    assert sent["format"] == "zip"
    download = get(client, owner, f"/api/v1/datasets/{sent['id']}/download")
    assert download.data == out.getvalue()


def test_a_browser_needs_the_token_of_a_page(
    app: Flask, owner: Person, settings: Settings
) -> None:
    client = owner.signed_in(app.test_client())
    body = {"file": (io.BytesIO(CSV), "a.csv")}

    assert client.post("/api/v1/datasets", data=body).status_code == 400
    assert stored(settings) == []


def test_other_origins_may_call_as_the_other_routes(client: FlaskClient, owner: Person) -> None:
    headers = {**owner.headers(), "Origin": "http://localhost:3000"}
    answer = client.get("/api/v1/datasets", headers=headers)

    assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert "Content-Disposition" in answer.headers["Access-Control-Expose-Headers"]
