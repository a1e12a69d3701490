"""Signing in with Google, against a real issuer on loopback."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from flask import Flask
from flask.testing import FlaskClient

from app.config import Settings
from tests.fixtures.accounts import PASSWORD, MakePerson, Person
from tests.fixtures.google import CLIENT_ID, Issuer
from tests.fixtures.mail import Mailbox

DOORS = {"torbiz": "/client/google-auth/", "dualquery": "/api/auth/google"}


@pytest.fixture
def settings(settings: Settings, issuer: Issuer) -> Settings:
    """Settings of a hub that trusts the issuer."""
    return settings.model_copy(
        update={"google_client_id": CLIENT_ID, "google_certs_url": issuer.url}
    )


def knock(client: FlaskClient, token: str, door: str = "torbiz") -> Any:
    return client.post(DOORS[door], json={"token": token})


@pytest.mark.parametrize("form", ["x509", "jwks"])
def test_a_new_address_makes_an_account(client: FlaskClient, issuer: Issuer, form: str) -> None:
    issuer.form = form
    answer = knock(client, issuer.token(email="New@Example.org"))
    body = answer.get_json()
    assert answer.status_code == 201
    assert body["email"] == "new@example.org"
    assert body["role"] == "user"
    assert body["profile_image_url"] == "https://pictures.example/ola.png"
    headers = {"Authorization": f"Token {body['token']}"}
    [mine] = client.get("/client/list/", headers=headers).get_json()
    assert mine["user"]["id"] == body["user_id"]


def test_dualquery_answers_with_a_jwt(client: FlaskClient, issuer: Issuer) -> None:
    answer = knock(client, issuer.token(), "dualquery")
    assert answer.status_code == 200
    headers = {"Authorization": f"Bearer {answer.get_json()['access_token']}"}
    assert client.get("/api/auth/me", headers=headers).get_json()["name"] == "Ola Owner"


def test_a_verified_address_opens_the_account_that_has_it(
    client: FlaskClient, issuer: Issuer, owner: Person
) -> None:
    assert knock(client, issuer.token()).get_json()["user_id"] == owner.id
    body = {"email": owner.email, "password": PASSWORD}
    assert client.post("/client/login/", json=body).status_code == 201


def test_once_linked_the_account_follows_the_google_user_not_the_address(
    client: FlaskClient, issuer: Issuer, owner: Person
) -> None:
    knock(client, issuer.token())
    moved = issuer.token(email="elsewhere@example.org", email_verified=False)
    assert knock(client, moved).get_json()["user_id"] == owner.id


class TestNotice:
    """Whoever registered an address first may not be the one whom Google knows by it."""

    @pytest.fixture
    def settings(self, settings: Settings, mailbox: Mailbox) -> Settings:
        return settings.model_copy(update={"smtp_url": mailbox.url})

    def test_a_linked_account_learns_of_it_and_can_shut_the_other_out(
        self, client: FlaskClient, issuer: Issuer, owner: Person, settings: Settings,
        run_jobs: Callable[[Settings], int], mailbox: Mailbox,
    ) -> None:  # fmt: skip
        body = {"email": owner.email, "password": PASSWORD}
        squatter = client.post("/client/login/", json=body).get_json()["token"]
        knock(client, issuer.token())

        assert run_jobs(settings) == 1
        assert mailbox.mails[0]["To"] == owner.email
        chosen = {"password": "a fresh password"}
        assert client.post(f"/client{mailbox.link()}/", json=chosen).status_code == 201
        assert client.post("/client/login/", json=body).status_code == 401
        headers = {"Authorization": f"Token {squatter}"}
        assert client.get("/client/list/", headers=headers).status_code == 401

    def test_is_sent_once_and_only_where_somebody_else_may_have_the_password(
        self, client: FlaskClient, issuer: Issuer, owner: Person, settings: Settings,
        run_jobs: Callable[[Settings], int],
    ) -> None:  # fmt: skip
        knock(client, issuer.token(email="new@example.org", sub="new"))
        assert run_jobs(settings) == 0
        knock(client, issuer.token())
        assert run_jobs(settings) == 1
        knock(client, issuer.token())
        assert run_jobs(settings) == 0


def test_another_google_user_with_that_address_is_refused(
    client: FlaskClient, issuer: Issuer, owner: Person
) -> None:
    knock(client, issuer.token())
    assert knock(client, issuer.token(sub="another")).status_code == 401


def test_an_unverified_address_opens_nothing(
    client: FlaskClient, issuer: Issuer, owner: Person
) -> None:
    for door in DOORS:
        answer = knock(client, issuer.token(email_verified=False), door)
        assert answer.status_code == 400
        assert "verified" in answer.get_json()["detail"]


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "another-app"},
        {"aud": None},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"exp": int(time.time()) - 3600, "iat": int(time.time()) - 7200},
        {"exp": None},
        {"iat": int(time.time()) + 3600, "exp": int(time.time()) + 7200},
        {"sub": None},
        {"email": None},
        {"key_id": "unknown", "key": rsa.generate_private_key(65537, 2048)},
        {"key": rsa.generate_private_key(65537, 2048)},
    ],
    ids=[
        "another audience", "no audience", "another issuer", "no issuer", "expired",
        "no expiry", "from the future", "nobody", "no address", "unknown key", "forged",
    ],
)  # fmt: skip
@pytest.mark.parametrize("door", DOORS)
def test_a_token_that_is_not_good_is_refused(
    client: FlaskClient, issuer: Issuer, owner: Person, changes: dict[str, Any], door: str
) -> None:
    answer = knock(client, issuer.token(**changes), door)
    assert answer.status_code == 401
    assert answer.get_json() == {"detail": "Invalid Google token"}


@pytest.mark.parametrize("token", ["x", "a.b.c", "..", "x" * 9000, "e30.e30."])
def test_noise_is_refused(client: FlaskClient, token: str) -> None:
    assert knock(client, token).status_code == 401


def test_an_unsigned_token_is_refused(client: FlaskClient, issuer: Issuer) -> None:
    head, claims, _ = issuer.token().split(".")
    none = "eyJhbGciOiJub25lIiwia2lkIjoiazEifQ"  # {"alg":"none","kid":"k1"}
    assert knock(client, f"{none}.{claims}.").status_code == 401
    assert knock(client, f"{head}.{claims}.").status_code == 401


class TestKeySet:
    def test_is_fetched_once_while_it_is_fresh(
        self, client: FlaskClient, issuer: Issuer
    ) -> None:
        for _ in range(3):
            assert knock(client, issuer.token()).status_code == 201
        assert issuer.fetches == 1

    def test_is_fetched_again_when_its_age_says_so(
        self, client: FlaskClient, issuer: Issuer
    ) -> None:
        issuer.cache_control = "max-age=0"
        for _ in range(3):
            knock(client, issuer.token())
        assert issuer.fetches == 3

    def test_a_new_key_is_found_when_the_old_set_is_over(
        self, client: FlaskClient, issuer: Issuer
    ) -> None:
        issuer.cache_control = "max-age=0"
        knock(client, issuer.token())
        issuer.add_key("k2")
        del issuer.keys["k1"]
        assert knock(client, issuer.token(key_id="k2")).status_code == 201

    def test_a_new_key_is_looked_for_before_the_old_set_is_over(
        self, app: Flask, client: FlaskClient, issuer: Issuer
    ) -> None:
        knock(client, issuer.token())
        issuer.add_key("k2")
        verifier = app.extensions["weft_google"]
        verifier._fetched_at -= 60  # a minute has passed
        assert knock(client, issuer.token(key_id="k2")).status_code == 201
        assert issuer.fetches == 2

    def test_unknown_keys_do_not_make_us_fetch_all_the_time(
        self, client: FlaskClient, issuer: Issuer
    ) -> None:
        knock(client, issuer.token())
        for number in range(5):
            knock(client, issuer.token(key_id=f"k{number}", key=issuer.keys["k1"]))
        assert issuer.fetches == 1

    def test_that_cannot_be_read_is_503(self, client: FlaskClient, issuer: Issuer) -> None:
        issuer.is_broken = True
        answer = knock(client, issuer.token())
        assert answer.status_code == 503
        assert "Retry-After" in answer.headers


@pytest.mark.parametrize("door", DOORS)
def test_where_it_is_not_set_up_it_is_503(
    make_app: Callable[..., Flask], issuer: Issuer, door: str
) -> None:
    client = make_app(google_client_id="").test_client()
    assert knock(client, issuer.token(), door).status_code == 503


def test_closed_registration_is_closed_here_too(
    make_app: Callable[..., Flask], make_person: MakePerson, issuer: Issuer
) -> None:
    client = make_app(open_signup=False).test_client()
    assert knock(client, issuer.token(email="new@example.org")).status_code == 403
    owner = make_person("owner")
    assert knock(client, issuer.token()).get_json()["user_id"] == owner.id


def test_a_deleted_account_is_not_opened_again(
    client: FlaskClient, issuer: Issuer, owner: Person
) -> None:
    knock(client, issuer.token())
    client.delete(f"/client/list/{owner.id}/", headers=owner.headers())
    assert knock(client, issuer.token()).get_json()["user_id"] != owner.id
