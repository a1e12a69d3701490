"""aitip: register, sign in and out, API keys."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jwt
import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.core.ids import uid_as_uuid
from tests.fixtures.accounts import PASSWORD, Person
from tests.fixtures.web import SECRET_KEY
from tests.openapi import assert_matches_openapi

NEW = {"email": "ann@example.org", "username": "ann", "password": "secret1"}
SIGNED_IN = {"user", "token", "access_token", "refresh_token", "expires_at", "token_type"}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def sign_in(client: FlaskClient, person: Person) -> Any:
    body = {"email": person.email, "password": PASSWORD}
    return client.post("/api/v1/auth/login", json=body).get_json()["data"]


class TestRegister:
    def test_answers_with_the_user_and_tokens_that_open(
        self, app: Flask, client: FlaskClient
    ) -> None:
        answer = client.post("/api/v1/auth/register", json=NEW)
        body = answer.get_json()
        assert answer.status_code == 201
        assert body["success"] is True
        assert set(body["data"]) == SIGNED_IN
        assert set(body["data"]["user"]) == {"id", "email", "username", "role", "created_at"}
        UUID(body["data"]["user"]["id"])
        assert body["data"]["token"] == body["data"]["access_token"]
        assert_matches_openapi(app, answer)
        me = client.get("/api/v1/auth/me", headers=bearer(body["data"]["token"]))
        assert me.get_json() == {"success": True, "data": body["data"]["user"]}

    @pytest.mark.parametrize("change", [{"username": "ann2"}, {"email": "ann2@example.org"}])
    def test_a_taken_name_is_a_conflict(
        self, client: FlaskClient, change: dict[str, str]
    ) -> None:
        client.post("/api/v1/auth/register", json=NEW)
        answer = client.post("/api/v1/auth/register", json={**NEW, **change})
        assert answer.status_code == 409
        assert answer.get_json()["error"]["code"] == "Conflict"

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"username": "an"}, "username"),
            ({"username": "a" * 51}, "username"),
            ({"password": "12345"}, "password"),
            ({"email": "nowhere"}, "email"),
        ],
    )
    def test_says_which_field_is_wrong(
        self, client: FlaskClient, change: dict[str, str], field: str
    ) -> None:
        answer = client.post("/api/v1/auth/register", json={**NEW, **change})
        body = answer.get_json()
        assert answer.status_code == 400
        assert body["success"] is False
        assert body["error"]["code"] == "Bad Request"
        assert body["error"]["message"].startswith(f"{field}: ")

    def test_is_closed_by_a_setting(self, make_app: Callable[..., Flask]) -> None:
        closed = make_app(open_signup=False).test_client()
        assert closed.post("/api/v1/auth/register", json=NEW).status_code == 403


class TestTokens:
    def test_a_wrong_password_and_an_unknown_name_answer_alike(
        self, client: FlaskClient, owner: Person
    ) -> None:
        answers = [
            client.post("/api/v1/auth/login", json={"email": email, "password": "wrong!"})
            for email in (owner.email, "nobody@example.org")
        ]
        assert [answer.status_code for answer in answers] == [401, 401]
        assert answers[0].get_json() == answers[1].get_json()

    def test_the_access_token_lives_two_hours(self, client: FlaskClient, owner: Person) -> None:
        signed_in = sign_in(client, owner)
        until = datetime.fromisoformat(signed_in["expires_at"])
        left = until - datetime.now(UTC)
        assert timedelta(hours=1, minutes=59) < left <= timedelta(hours=2)
        claims = jwt.decode(signed_in["token"], SECRET_KEY, algorithms=["HS256"])
        assert claims["exp"] == until.timestamp()

    @pytest.mark.parametrize("forge", ["expired", "unsigned", "other key", "refresh", "noise"])
    def test_a_token_that_is_not_good_opens_nothing(
        self, client: FlaskClient, owner: Person, forge: str
    ) -> None:
        signed_in = sign_in(client, owner)
        claims = jwt.decode(signed_in["token"], SECRET_KEY, algorithms=["HS256"])
        token = {
            "expired": jwt.encode({**claims, "exp": 1}, SECRET_KEY),
            "unsigned": jwt.encode(claims, None, algorithm="none"),
            "other key": jwt.encode(claims, "y" * 40),
            "refresh": signed_in["refresh_token"],
            "noise": "a.b.c",
        }[forge]
        assert client.get("/api/v1/auth/me", headers=bearer(token)).status_code == 401

    def test_refresh_gives_tokens_that_open(
        self, app: Flask, client: FlaskClient, owner: Person
    ) -> None:
        signed_in = sign_in(client, owner)
        answer = client.post(
            "/api/v1/auth/refresh", json={"refresh_token": signed_in["refresh_token"]}
        )
        assert_matches_openapi(app, answer)
        fresh = answer.get_json()["data"]
        assert set(fresh) == SIGNED_IN
        assert fresh["token"] != signed_in["token"]
        me = client.get("/api/v1/auth/me", headers=bearer(fresh["token"]))
        assert me.get_json()["data"]["id"] == uid_as_uuid(owner.uid)

    def test_an_access_token_refreshes_nothing(
        self, client: FlaskClient, owner: Person
    ) -> None:
        token = sign_in(client, owner)["access_token"]
        answer = client.post("/api/v1/auth/refresh", json={"refresh_token": token})
        assert answer.status_code == 401

    def test_log_out_ends_access_and_refresh(self, client: FlaskClient, owner: Person) -> None:
        signed_in = sign_in(client, owner)
        again = sign_in(client, owner)
        headers = bearer(signed_in["token"])
        assert client.get("/api/v1/auth/me", headers=headers).status_code == 200
        assert client.post("/api/v1/auth/logout", headers=headers).status_code == 200
        assert client.get("/api/v1/auth/me", headers=headers).status_code == 401
        refreshed = client.post(
            "/api/v1/auth/refresh", json={"refresh_token": signed_in["refresh_token"]}
        )
        assert refreshed.status_code == 401
        assert client.get("/api/v1/auth/me", headers=bearer(again["token"])).status_code == 200


class TestApiKeys:
    def make(self, client: FlaskClient, person: Person, name: str = "ci") -> Any:
        return client.post(
            "/api/v1/api-keys", headers=person.headers("bearer-jwt"), json={"name": name}
        )

    def test_a_key_is_whole_once_and_opens_the_account(
        self, app: Flask, client: FlaskClient, owner: Person
    ) -> None:
        answer = self.make(client, owner)
        assert answer.status_code == 201
        assert_matches_openapi(app, answer)
        key = answer.get_json()["data"]["key"]
        assert key.startswith("sk-")
        me = client.get("/api/v1/auth/me", headers={"X-API-Key": key})
        assert me.get_json()["data"]["username"] == owner.username

        listed = client.get("/api/v1/api-keys", headers=owner.headers())
        assert_matches_openapi(app, listed)
        newest = listed.get_json()["data"][0]
        assert newest["name"] == "ci"
        assert newest["key"] == f"{key[:7]}…{key[-4:]}"
        assert key not in listed.get_data(as_text=True)
        assert listed.get_json()["meta"] == {
            "page": 1, "page_size": 20, "total": 2, "total_page": 1,
        }  # fmt: skip

    def test_a_list_says_when_a_key_was_used(self, client: FlaskClient, owner: Person) -> None:
        def used() -> Any:
            jwt_headers = owner.headers("bearer-jwt")
            [key] = client.get("/api/v1/api-keys", headers=jwt_headers).get_json()["data"]
            return key["last_used_at"]

        assert used() is None
        client.get("/api/v1/auth/me", headers=owner.headers("x-api-key"))
        assert datetime.fromisoformat(used()) <= datetime.now(UTC)

    def test_lists_go_page_by_page(self, client: FlaskClient, owner: Person) -> None:
        for number in range(2):
            self.make(client, owner, f"key {number}")
        page = client.get("/api/v1/api-keys?page=2&page_size=2", headers=owner.headers())
        assert [key["name"] for key in page.get_json()["data"]] == ["test"]
        assert page.get_json()["meta"]["total_page"] == 2

    @pytest.mark.parametrize("query", ["page=0", "page_size=0", "page_size=101", "page=x"])
    def test_a_bad_page_is_refused(
        self, client: FlaskClient, owner: Person, query: str
    ) -> None:
        answer = client.get(f"/api/v1/api-keys?{query}", headers=owner.headers())
        assert answer.status_code == 400

    def test_an_account_has_ten_at_most(self, client: FlaskClient, owner: Person) -> None:
        # The account of this test has one already.
        statuses = [self.make(client, owner, f"k{n}").status_code for n in range(10)]
        assert statuses == [201] * 9 + [409]

    def test_revoking_ends_a_key_at_once(self, client: FlaskClient, owner: Person) -> None:
        made = self.make(client, owner).get_json()["data"]
        key = {"X-API-Key": made["key"]}
        assert client.get("/api/v1/auth/me", headers=key).status_code == 200
        answer = client.delete(f"/api/v1/api-keys/{made['id']}", headers=owner.headers())
        assert answer.status_code == 200
        assert client.get("/api/v1/auth/me", headers=key).status_code == 401

    def test_nobody_revokes_the_key_of_somebody_else(
        self, client: FlaskClient, owner: Person, other: Person
    ) -> None:
        made = self.make(client, owner).get_json()["data"]
        answer = client.delete(f"/api/v1/api-keys/{made['id']}", headers=other.headers())
        assert answer.status_code == 404
        key = {"X-API-Key": made["key"]}
        assert client.get("/api/v1/auth/me", headers=key).status_code == 200

    @pytest.mark.parametrize("key_id", ["x", "00000000-0000-0000-0000-000000000000", "1"])
    def test_an_unknown_key_is_not_found(
        self, client: FlaskClient, owner: Person, key_id: str
    ) -> None:
        answer = client.delete(f"/api/v1/api-keys/{key_id}", headers=owner.headers())
        assert answer.status_code == 404

    @pytest.mark.parametrize("name", ["", " ", "x" * 256])
    def test_a_key_needs_a_name(self, client: FlaskClient, owner: Person, name: str) -> None:
        assert self.make(client, owner, name).status_code == 400
