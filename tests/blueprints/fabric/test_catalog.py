"""fabric: the catalogue of models and of Android apps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.services import apks
from app.core.services.apks import NewApk
from tests.blueprints.fabric.conftest import Get, assert_golden, data_of
from tests.fixtures.accounts import Person

MODEL = {
    "name": "llama", "version": "1.0", "version_code": 1, "engine_type": 7, "is_active": True,
    "min_memory_mb": 8000, "min_gpu_memory_gb": 16,
    "download_url": "https://example.org/llama.gguf", "checksum": "ab" * 32,
    "expected_size": 2**40,
}  # fmt: skip
APK = {
    "package_name": "org.example.app", "version_name": "1.0.0", "version_code": 10,
    "download_url": "https://example.org/app.apk", "channel": "beta", "min_os_version": "9",
    "sha256": "AB" * 32, "file_size_bytes": 1234, "is_active": True,
    "released_at": "2026-03-02T00:00:00+02:00",
}  # fmt: skip


class TestModels:
    def insert(
        self, client: FlaskClient, admin: Person, expect: int = 200, **changes: Any
    ) -> Any:
        answer = client.post(
            "/api/models/insert", json={**MODEL, **changes}, headers=admin.headers()
        )
        return data_of(answer, expect)

    def test_look_as_the_contract_says(
        self, client: FlaskClient, admin: Person, get: Get
    ) -> None:
        assert self.insert(client, admin) is None
        (model,) = get("/api/models/get")
        assert isinstance(model.pop("id"), int)
        assert_golden("models_get", model)

    def test_the_same_version_is_changed_and_stays_as_active_as_it_was(
        self, client: FlaskClient, admin: Person, get: Get
    ) -> None:
        self.insert(client, admin, is_active=False)
        self.insert(client, admin, is_active=None, checksum=None, min_gpu_memory_gb=None)
        (model,) = get("/api/models/get")
        assert (model["is_active"], model["checksum"]) == (False, None)
        assert model["min_gpu_memory_gb"] is None

    def test_a_version_code_that_another_version_has_conflicts(
        self, client: FlaskClient, admin: Person, get: Get
    ) -> None:
        self.insert(client, admin)
        self.insert(client, admin, 409, version="1.1")
        assert len(get("/api/models/get")) == 1

    def test_are_filtered_and_ordered_by_what_they_need(
        self, client: FlaskClient, admin: Person, get: Get
    ) -> None:
        for code, needed in ((1, 8), (2, None), (3, 24), (4, 8)):
            self.insert(
                client, admin, version=str(code), version_code=code, min_gpu_memory_gb=needed,
                is_active=code != 4,
            )  # fmt: skip

        def codes(**query: Any) -> list[int]:
            return [model["version_code"] for model in get("/api/models/get", **query)]

        assert codes() == [3, 4, 1, 2]
        assert codes(min_gpu_memory_gb=8) == [4, 1, 2]
        assert codes(min_gpu_memory_gb=0) == [2]
        assert codes(is_active="true") == [3, 1, 2]
        assert codes(is_active="false", min_gpu_memory_gb=8) == [4]

    @pytest.mark.parametrize(
        "change",
        [{"name": ""}, {"name": "x" * 101}, {"version": " "}, {"version": "x" * 51},
         {"version_code": 0}, {"version_code": "one"}, {"engine_type": 0}, {"engine_type": 9},
         {"min_memory_mb": -1}, {"download_url": "ftp://x/y"}, {"download_url": "http://"},
         {"checksum": "x" * 129}, {"expected_size": -1}, {"expected_size": 2**63}],
    )  # fmt: skip
    def test_bad_values_are_refused(
        self, client: FlaskClient, admin: Person, get: Get, change: dict[str, Any]
    ) -> None:
        self.insert(client, admin, 400, **change)
        assert get("/api/models/get") == []

    def test_bad_filters_are_refused(self, get: Get) -> None:
        get("/api/models/get", expect=400, is_active="perhaps")
        get("/api/models/get", expect=400, min_gpu_memory_gb="big")


class TestApks:
    def upsert(
        self, client: FlaskClient, admin: Person, expect: int = 200, **changes: Any
    ) -> Any:
        answer = client.post(
            "/api/apk/upsert", json={**APK, **changes}, headers=admin.headers()
        )
        return data_of(answer, expect)

    def test_look_as_the_contract_says(
        self, client: FlaskClient, admin: Person, get: Get
    ) -> None:
        stored = self.upsert(client, admin)
        found = get("/api/apk/get", package_name="org.example.app", version_code=10)
        assert found == stored
        assert get("/api/apk/list") == [stored]
        assert isinstance(stored.pop("id"), int)
        assert_golden("apk", stored)

    def test_what_is_null_keeps_what_is_stored(
        self, client: FlaskClient, admin: Person
    ) -> None:
        first = self.upsert(client, admin)
        optional = ("channel", "min_os_version", "sha256", "file_size_bytes", "is_active",
                    "released_at")  # fmt: skip
        second = self.upsert(client, admin, version_name="1.0.1", **dict.fromkeys(optional))
        assert {**second, "updated_at": 0} == {
            **first, "version_name": "1.0.1", "updated_at": 0,
        }  # fmt: skip

    def test_a_new_one_is_active_and_stable(self, client: FlaskClient, admin: Person) -> None:
        stored = self.upsert(client, admin, channel=None, is_active=None)
        assert (stored["channel"], stored["is_active"]) == ("stable", True)

    def test_two_at_once_are_one_version(self, sessions: sessionmaker[Session]) -> None:
        def upsert(name: str) -> str:
            new = NewApk("org.example.race", name, 1, "https://example.org/1.apk")
            with sessions.begin() as session:
                return apks.upsert_apk(session, new, now=utc_now()).version_name

        for _ in range(5):
            with ThreadPoolExecutor(4) as pool:
                assert list(pool.map(upsert, "abcd")) == list("abcd")
        with sessions() as session:
            assert len(apks.list_apks(session, package_name="org.example.race")) == 1

    def test_an_unknown_version_is_null(self, get: Get) -> None:
        assert get("/api/apk/get", package_name="none", version_code=1) is None

    def test_are_filtered_ordered_and_limited(
        self, client: FlaskClient, admin: Person, get: Get
    ) -> None:
        for package, code, released, channel in (
            ("a", 1, "2026-01-01T00:00:00Z", "stable"), ("b", 1, None, "stable"),
            ("c", 1, "2026-02-01T00:00:00Z", "beta"), ("a", 2, None, "stable"),
        ):  # fmt: skip
            self.upsert(
                client, admin, package_name=package, version_code=code, released_at=released,
                channel=channel, is_active=package != "b",
            )  # fmt: skip

        def listed(**query: Any) -> list[str]:
            return [
                f"{one['package_name']}{one['version_code']}"
                for one in get("/api/apk/list", **query)
            ]

        assert listed() == ["a2", "c1", "a1", "b1"]
        assert listed(package_name="a") == ["a2", "a1"]
        assert listed(channel="beta") == ["c1"]
        assert listed(is_active="true", limit=2) == ["a2", "c1"]

    @pytest.mark.parametrize(
        "change",
        [{"package_name": ""}, {"package_name": "x" * 256}, {"version_name": "x" * 65},
         {"version_code": 0}, {"download_url": "javascript:alert(1)"}, {"download_url": ""},
         {"sha256": "ab"}, {"sha256": "zz" * 32}, {"file_size_bytes": -1},
         {"released_at": "yesterday"}, {"released_at": "2026-03-01T00:00:00"},
         {"channel": "x" * 33}],
    )  # fmt: skip
    def test_bad_values_are_refused(
        self, client: FlaskClient, admin: Person, get: Get, change: dict[str, Any]
    ) -> None:
        self.upsert(client, admin, 400, **change)
        assert get("/api/apk/list") == []

    def test_bad_queries_are_refused(self, get: Get) -> None:
        get("/api/apk/get", expect=400)
        get("/api/apk/get", expect=400, package_name="a", version_code="x")
        get("/api/apk/list", expect=400, limit=201)
        get("/api/apk/list", expect=400, limit=0)
