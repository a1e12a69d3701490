"""torbiz: register, sign in and out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.fixtures.accounts import PASSWORD, Person

CLIENT_FIELDS = {
    "user", "phone_no", "user_token", "user_image", "ip", "terms_accepted", "role",
    "profile_image_url", "is_gpu_provider_approved", "provider_registration_date",
}  # fmt: skip
NEW = {
    "username": "ann",
    "email": "Ann@Example.org",
    "password": "secret1",
    "confirm_password": "secret1",
    "terms_accepted": True,
}


def register(client: FlaskClient, **changes: Any) -> Any:
    return client.post("/client/register/", json={**NEW, **changes})


class TestRegister:
    def test_answers_with_the_client_object_and_a_whole_token(
        self, client: FlaskClient
    ) -> None:
        answer = register(client)
        body = answer.get_json()
        assert answer.status_code == 201
        assert set(body) == CLIENT_FIELDS
        assert set(body["user"]) == {"id", "username", "email"}
        assert body["user"]["username"] == "ann"
        assert body["user"]["email"] == "ann@example.org"
        assert body["terms_accepted"] is True
        assert body["role"] == "user"
        assert body["is_gpu_provider_approved"] is False

        token = {"Authorization": f"Token {body['user_token']}"}
        mine = client.get("/client/list/", headers=token)
        assert [one["user"]["id"] for one in mine.get_json()] == [body["user"]["id"]]

    @pytest.mark.parametrize("field", ["username", "email"])
    def test_names_the_field_that_is_taken(self, client: FlaskClient, field: str) -> None:
        register(client)
        changes = {"username": "ann2", "email": "ann2@example.org"}
        del changes[field]
        answer = register(client, **changes)
        assert answer.status_code == 400
        assert list(answer.get_json()) == [field]
        assert isinstance(answer.get_json()[field][0], str)

    def test_an_address_in_other_case_is_the_same_address(self, client: FlaskClient) -> None:
        register(client)
        answer = register(client, username="ann2", email="ANN@EXAMPLE.ORG")
        assert list(answer.get_json()) == ["email"]

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"email": "nobody"}, "email"),
            ({"username": ""}, "username"),
            ({"username": "a<b>"}, "username"),
            ({"password": "short", "confirm_password": "short"}, "password"),
            ({"confirm_password": "another"}, "confirm_password"),
            ({"terms_accepted": "perhaps"}, "terms_accepted"),
        ],
    )
    def test_says_what_is_wrong_field_by_field(
        self, client: FlaskClient, changes: dict[str, Any], field: str
    ) -> None:
        answer = register(client, **changes)
        assert answer.status_code == 400
        assert list(answer.get_json()) == [field]

    def test_nobody_chooses_a_role_an_approval_or_an_id(self, client: FlaskClient) -> None:
        body = register(client, role="admin", is_gpu_provider_approved=True, id=4711).get_json()
        assert body["role"] == "user"
        assert body["is_gpu_provider_approved"] is False
        assert body["user"]["id"] != 4711

    def test_a_nul_in_a_text_is_refused(self, client: FlaskClient) -> None:
        assert register(client, username="an\x00n").status_code == 400

    def test_is_closed_by_a_setting(self, make_app: Callable[..., Flask]) -> None:
        closed = make_app(open_signup=False).test_client()
        answer = register(closed)
        assert answer.status_code == 403
        assert "detail" in answer.get_json()


class TestLogin:
    @pytest.mark.parametrize("name", ["email", "username"])
    def test_opens_with_an_email_or_a_user_name(
        self, client: FlaskClient, owner: Person, name: str
    ) -> None:
        answer = client.post(
            "/client/login/", json={name: getattr(owner, name), "password": PASSWORD}
        )
        body = answer.get_json()
        assert answer.status_code == 201
        assert set(body) == {
            "token", "user_id", "device_token", "username", "email", "role",
            "profile_image", "profile_image_url",
        }  # fmt: skip
        assert body["user_id"] == owner.id
        headers = {"Authorization": f"Token {body['token']}"}
        assert client.get("/client/list/", headers=headers).status_code == 200

    @pytest.mark.parametrize("login", ["owner@example.org", "nobody@example.org"])
    def test_a_wrong_password_and_an_unknown_name_answer_alike(
        self, client: FlaskClient, owner: Person, login: str
    ) -> None:
        answer = client.post("/client/login/", json={"email": login, "password": "wrong!"})
        assert answer.status_code == 401
        assert answer.get_json() == {"detail": "Incorrect email or password"}

    def test_needs_a_name(self, client: FlaskClient) -> None:
        assert client.post("/client/login/", json={"password": "x"}).status_code == 400


class TestLogout:
    def token(self, client: FlaskClient) -> dict[str, str]:
        found: dict[str, str] = client.post(
            "/client/login/", json={"email": "owner@example.org", "password": PASSWORD}
        ).get_json()
        return found

    def test_ends_the_token_that_calls_and_no_other(
        self, client: FlaskClient, owner: Person
    ) -> None:
        headers = {"Authorization": f"Token {self.token(client)['token']}"}
        assert client.get("/client/list/", headers=headers).status_code == 200
        assert client.post("/client/logout/", headers=headers).status_code == 201
        assert client.get("/client/list/", headers=headers).status_code == 401
        assert client.get("/client/list/", headers=owner.headers("token")).status_code == 200

    def test_ends_the_tokens_of_a_device(self, client: FlaskClient, owner: Person) -> None:
        signed_in = self.token(client)
        answer = client.post(
            "/client/logout/",
            json={"device_token": signed_in["device_token"]},
            headers=owner.headers("basic"),
        )
        assert answer.status_code == 201
        headers = {"Authorization": f"Token {signed_in['token']}"}
        assert client.get("/client/list/", headers=headers).status_code == 401

    def test_nobody_ends_the_device_of_somebody_else(
        self, client: FlaskClient, owner: Person, other: Person
    ) -> None:
        client.post(
            "/client/logout/",
            json={"device_token": owner.device_token},
            headers=other.headers("basic"),
        )
        assert client.get("/client/list/", headers=owner.headers("token")).status_code == 200

    def test_an_api_key_outlives_a_log_out(self, client: FlaskClient, owner: Person) -> None:
        key = owner.headers("x-api-key")
        assert client.post("/client/logout/", headers=key).status_code == 201
        assert client.get("/client/list/", headers=key).status_code == 200
