"""Who calls: every carrier opens every dialect, and all of them end when they should."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.web.auth import SESSION_SECRET
from tests.fixtures.accounts import CARRIERS, PASSWORD, MakePerson, Person
from tests.fixtures.clocks import PassTime

# A page of each dialect that every account may read.
DOORS = {
    "torbiz": "/client/list/",
    "aitip": "/api/v1/auth/me",
    "dualquery": "/api/auth/me",
    "openai": "/v1/models",
}
OPEN_ROUTES = {
    "torbiz": ("/client/login/", {"email": "owner@example.org", "password": PASSWORD}),
    "aitip": ("/api/v1/auth/login", {"email": "owner@example.org", "password": PASSWORD}),
    "dualquery": ("/api/auth/login", {"email": "owner@example.org", "password": PASSWORD}),
}
WRONG = {
    "basic": {"Authorization": "Basic " + base64.b64encode(b"owner@example.org:no").decode()},
    "basic-noise": {"Authorization": "Basic ###"},
    "token": {"Authorization": "Token wt_nothing"},
    "bearer": {"Authorization": "Bearer sk-nothing"},
    "jwt": {"Authorization": "Bearer a.b.c"},
    "key": {"X-API-Key": "sk-nothing"},
    "scheme": {"Authorization": "Digest x"},
}


@pytest.mark.parametrize("path", DOORS.values(), ids=DOORS)
@pytest.mark.parametrize("carrier", CARRIERS)
def test_every_carrier_opens_every_dialect(
    client: FlaskClient, owner: Person, carrier: str, path: str
) -> None:
    assert client.get(path, headers=owner.headers(carrier)).status_code == 200


@pytest.mark.parametrize("path", DOORS.values(), ids=DOORS)
def test_the_dashboards_session_opens_every_dialect(
    client: FlaskClient, owner: Person, path: str
) -> None:
    assert owner.signed_in(client).get(path).status_code == 200


@pytest.mark.parametrize("path", DOORS.values(), ids=DOORS)
def test_without_a_credential_every_door_is_closed(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 401


@pytest.mark.parametrize("path", DOORS.values(), ids=DOORS)
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_credential_is_refused(
    client: FlaskClient, owner: Person, path: str, wrong: dict[str, str]
) -> None:
    assert client.get(path, headers=wrong).status_code == 401


@pytest.mark.parametrize("door", OPEN_ROUTES)
def test_a_wrong_credential_is_refused_on_open_routes_too(
    client: FlaskClient, owner: Person, door: str
) -> None:
    path, body = OPEN_ROUTES[door]
    assert client.post(path, json=body, headers=WRONG["bearer"]).status_code == 401
    assert client.post(path, json=body).status_code in {200, 201}


@pytest.mark.parametrize("path", DOORS.values(), ids=DOORS)
@pytest.mark.parametrize("second", ["the same account's", "another account's", "a wrong one"])
def test_two_credentials_at_once_are_refused(
    client: FlaskClient, owner: Person, other: Person, path: str, second: str
) -> None:
    keys = {
        "the same account's": owner.api_key,
        "another account's": other.api_key,
        "a wrong one": "sk-nothing",
    }
    headers = {**owner.headers("bearer-jwt"), "X-API-Key": keys[second]}
    assert client.get(path, headers=headers).status_code == 400


def test_two_authorization_headers_are_refused(client: FlaskClient, owner: Person) -> None:
    twice = [("Authorization", f"Bearer {owner.api_key}"), ("Authorization", "Token x")]
    assert client.get(DOORS["aitip"], headers=twice).status_code == 400


def test_a_cookie_beside_a_header_is_ignored(
    client: FlaskClient, owner: Person, other: Person
) -> None:
    browser = other.signed_in(client)
    answer = browser.get(DOORS["dualquery"], headers=owner.headers("bearer-jwt"))
    assert answer.get_json()["_id"] == owner.uid


class TestCookie:
    BODY: ClassVar = {"name": "made by a form"}

    def test_alone_does_not_let_another_site_post(
        self, client: FlaskClient, owner: Person
    ) -> None:
        browser = owner.signed_in(client)
        answer = browser.post("/api/v1/api-keys", json=self.BODY)
        assert answer.status_code == 400
        assert "CSRF" in answer.get_json()["error"]["message"]
        listed = client.get("/api/v1/api-keys", headers=owner.headers())
        assert [key["name"] for key in listed.get_json()["data"]] == ["test"]

    def test_with_the_pages_token_may_post(self, client: FlaskClient, owner: Person) -> None:
        browser = owner.signed_in(client)
        page = browser.get("/account").get_data(as_text=True)
        token = page.split('name="csrf-token" content="')[1].split('"')[0]
        answer = browser.post(
            "/api/v1/api-keys", json=self.BODY, headers={"X-CSRFToken": token}
        )
        assert answer.status_code == 201

    def test_that_was_ended_is_a_visitors(self, client: FlaskClient, owner: Person) -> None:
        with client.session_transaction() as cookie:
            cookie[SESSION_SECRET] = "ws_nothing"
        assert client.get(DOORS["aitip"]).status_code == 401


class TestRevocation:
    """Each carrier is used first, so that whatever remembers it has to forget it."""

    def opens(self, client: FlaskClient, headers: dict[str, str]) -> bool:
        statuses = {client.get(path, headers=headers).status_code for path in DOORS.values()}
        assert len(statuses) == 1
        return statuses == {200}

    @pytest.mark.parametrize("carrier", ["token", "bearer-token"])
    def test_a_log_out_ends_the_token(
        self, client: FlaskClient, owner: Person, carrier: str
    ) -> None:
        headers = owner.headers(carrier)
        assert self.opens(client, headers)
        client.post("/client/logout/", headers=headers)
        assert not self.opens(client, headers)

    def test_a_log_out_ends_the_jwt(self, client: FlaskClient, owner: Person) -> None:
        headers = owner.headers("bearer-jwt")
        assert self.opens(client, headers)
        client.post("/api/v1/auth/logout", headers=headers)
        assert not self.opens(client, headers)

    @pytest.mark.parametrize("carrier", ["bearer-key", "x-api-key"])
    def test_deleting_a_key_ends_it(
        self, client: FlaskClient, owner: Person, carrier: str
    ) -> None:
        headers = owner.headers(carrier)
        assert self.opens(client, headers)
        jwt = owner.headers("bearer-jwt")
        [key] = client.get("/api/v1/api-keys", headers=jwt).get_json()["data"]
        client.delete(f"/api/v1/api-keys/{key['id']}", headers=jwt)
        assert not self.opens(client, headers)

    @pytest.mark.parametrize("carrier", CARRIERS)
    def test_a_deleted_account_has_no_carrier(
        self, client: FlaskClient, owner: Person, admin: Person, carrier: str
    ) -> None:
        headers = owner.headers(carrier)
        assert self.opens(client, headers)
        client.delete(f"/client/list/{owner.id}/", headers=admin.headers())
        assert not self.opens(client, headers)

    def test_another_process_forgets_it_within_a_second(
        self, make_app: Callable[..., Flask], make_person: MakePerson, pass_time: PassTime
    ) -> None:
        owner = make_person("owner")
        here, there = make_app().test_client(), make_app().test_client()
        headers = owner.headers("token")
        assert there.get(DOORS["torbiz"], headers=headers).status_code == 200
        here.post("/client/logout/", headers=headers)
        pass_time(1.0)
        assert there.get(DOORS["torbiz"], headers=headers).status_code == 401


class TestFailedSignIns:
    """Ten a minute for an account and an address, over all doors and Basic together."""

    def fail(self, client: FlaskClient, door: str, login: str = "owner@example.org") -> Any:
        if door == "basic":
            pair = base64.b64encode(f"{login}:wrong!".encode()).decode()
            return client.get(DOORS["torbiz"], headers={"Authorization": f"Basic {pair}"})
        path, body = OPEN_ROUTES[door]
        return client.post(path, json={**body, "email": login, "password": "wrong!"})

    @pytest.mark.parametrize("door", [*OPEN_ROUTES, "basic"])
    def test_the_eleventh_is_429_at_every_door(
        self, client: FlaskClient, owner: Person, door: str
    ) -> None:
        doors = ["torbiz", "aitip", "dualquery", "basic"]
        for number in range(10):
            assert self.fail(client, doors[number % 4]).status_code == 401
        answer = self.fail(client, door)
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        shape = {"aitip": {"success", "error"}}.get(door, {"detail"})
        assert set(answer.get_json()) == shape

    def test_the_right_password_has_to_wait_too(
        self, client: FlaskClient, owner: Person
    ) -> None:
        for _ in range(10):
            self.fail(client, "torbiz")
        path, body = OPEN_ROUTES["torbiz"]
        assert client.post(path, json=body).status_code == 429

    def test_other_accounts_and_other_carriers_go_on(
        self, client: FlaskClient, owner: Person, other: Person
    ) -> None:
        for _ in range(10):
            self.fail(client, "torbiz")
        body = {"email": other.email, "password": PASSWORD}
        assert client.post("/client/login/", json=body).status_code == 201
        assert client.get(DOORS["aitip"], headers=owner.headers("token")).status_code == 200

    def test_an_unknown_name_is_limited_like_a_known_one(self, client: FlaskClient) -> None:
        statuses = [
            self.fail(client, "torbiz", "nobody@example.org").status_code for _ in range(11)
        ]
        assert statuses == [401] * 10 + [429]
