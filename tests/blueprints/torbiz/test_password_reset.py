"""A password by mail: asked for at the door, sent by a worker, used once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from app.config import Settings
from app.core.clock import utc_now
from app.core.models import PasswordReset
from app.core.services.password_reset import MAILS_PER_HOUR
from tests.fixtures.accounts import CARRIERS, PASSWORD, Person
from tests.fixtures.mail import Mailbox
from tests.fixtures.waiting import eventually

RunJobs = Callable[[Settings], int]
NEW = "a fresh password"


@pytest.fixture
def settings(settings: Settings, mailbox: Mailbox) -> Settings:
    """Settings of a hub that has a mail server."""
    changes = {"smtp_url": mailbox.url, "public_url": "https://hub.example"}
    return settings.model_copy(update=changes)


@pytest.fixture
def ask(client: FlaskClient, settings: Settings, run_jobs: RunJobs) -> Callable[[str], Any]:
    """Ask for a mail, and let the worker send it."""

    def ask_and_send(email: str) -> Any:
        answer = client.post("/client/password-reset/", json={"email": email})
        assert run_jobs(settings) == 1
        return answer

    return ask_and_send


def sign_in(client: FlaskClient, password: str) -> int:
    body = {"email": "owner@example.org", "password": password}
    return client.post("/client/login/", json=body).status_code


def test_sends_one_mail_whose_link_sets_a_password(
    client: FlaskClient, owner: Person, ask: Callable[[str], Any], mailbox: Mailbox
) -> None:
    assert ask("OWNER@example.org").status_code == 201
    [mail] = mailbox.mails
    assert mail["To"] == owner.email
    assert "https://hub.example/reset-password/" in mail.get_content()

    url = f"/client{mailbox.link()}/"
    assert sign_in(client, PASSWORD) == 201
    answer = client.post(url, json={"new_password": NEW, "confirm_password": NEW})
    assert answer.status_code == 201
    assert (sign_in(client, PASSWORD), sign_in(client, NEW)) == (401, 201)


def test_a_link_works_once(
    client: FlaskClient, owner: Person, ask: Callable[[str], Any], mailbox: Mailbox
) -> None:
    ask(owner.email)
    url = f"/client{mailbox.link()}/"
    assert client.post(url, json={"password": NEW}).status_code == 201
    assert client.post(url, json={"password": "another one"}).status_code == 400
    assert sign_in(client, NEW) == 201


def test_every_link_dies_when_the_password_changes(
    client: FlaskClient, owner: Person, ask: Callable[[str], Any], mailbox: Mailbox
) -> None:
    ask(owner.email)
    first = f"/client{mailbox.link()}/"
    ask(owner.email)
    second = f"/client{mailbox.link()}/"
    assert client.post(second, json={"password": NEW}).status_code == 201
    assert client.post(first, json={"password": "another one"}).status_code == 400


def test_a_link_lives_an_hour(
    client: FlaskClient,
    owner: Person,
    ask: Callable[[str], Any],
    mailbox: Mailbox,
    sessions: sessionmaker[Session],
) -> None:
    ask(owner.email)
    with sessions.begin() as session:
        reset = session.scalars(sa.select(PasswordReset)).one()
        assert reset.expires_at - reset.created_at == timedelta(hours=1)
        reset.expires_at = utc_now()
    answer = client.post(f"/client{mailbox.link()}/", json={"password": NEW})
    assert answer.status_code == 400
    assert sign_in(client, PASSWORD) == 201


def test_an_unknown_address_gets_the_same_answer_and_no_mail(
    owner: Person, ask: Callable[[str], Any], mailbox: Mailbox
) -> None:
    known, unknown = ask(owner.email), ask("nobody@example.org")
    assert known.status_code == unknown.status_code == 201
    assert known.get_json() == unknown.get_json()
    assert len(mailbox.mails) == 1


def test_a_mailbox_is_not_flooded(
    owner: Person, ask: Callable[[str], Any], mailbox: Mailbox
) -> None:
    statuses = {ask(owner.email).status_code for _ in range(MAILS_PER_HOUR + 2)}
    assert statuses == {201}
    assert len(mailbox.mails) == MAILS_PER_HOUR


def test_an_address_that_asks_all_the_time_is_limited(client: FlaskClient) -> None:
    statuses = [
        client.post("/client/password-reset/", json={"email": "a@example.org"}).status_code
        for _ in range(21)
    ]
    assert statuses == [201] * 20 + [429]


def test_a_reset_ends_sign_ins_but_not_api_keys(
    client: FlaskClient, owner: Person, ask: Callable[[str], Any], mailbox: Mailbox
) -> None:
    def works(carrier: str) -> bool:
        headers = owner.headers(carrier)
        return client.get("/client/list/", headers=headers).status_code == 200

    assert all(works(carrier) for carrier in CARRIERS)
    ask(owner.email)
    client.post(f"/client{mailbox.link()}/", json={"password": NEW})
    still = {carrier for carrier in CARRIERS if works(carrier)}
    assert still == {"bearer-key", "x-api-key"}
    browser = owner.signed_in(client)
    assert browser.get("/client/list/").status_code == 401


@pytest.mark.parametrize("part", ["token", "uid", "other uid"])
def test_a_wrong_link_sets_nothing(
    client: FlaskClient,
    owner: Person,
    other: Person,
    ask: Callable[[str], Any],
    mailbox: Mailbox,
    part: str,
) -> None:
    ask(owner.email)
    _, _, uid, token = mailbox.link().split("/")
    uid, token = {
        "token": (uid, token[:-1] + "~"),
        "uid": ("%%%", token),
        "other uid": ("OTk5", token),
    }[part]
    answer = client.post(f"/client/reset-password/{uid}/{token}/", json={"password": NEW})
    assert answer.status_code == 400
    assert set(answer.get_json()) == {"detail"}
    assert sign_in(client, PASSWORD) == 201


@pytest.mark.parametrize(
    "body",
    [{}, {"password": "short"}, {"new_password": NEW, "confirm_password": "another"}],
)
def test_a_bad_password_leaves_the_link_good(
    client: FlaskClient,
    owner: Person,
    ask: Callable[[str], Any],
    mailbox: Mailbox,
    body: dict[str, str],
) -> None:
    ask(owner.email)
    url = f"/client{mailbox.link()}/"
    assert client.post(url, json=body).status_code == 400
    assert client.post(url, json={"password": NEW}).status_code == 201


def test_the_host_header_does_not_choose_where_a_link_leads(
    client: FlaskClient, owner: Person, settings: Settings, run_jobs: RunJobs, mailbox: Mailbox
) -> None:
    client.post(
        "/client/password-reset/",
        json={"email": owner.email},
        headers={"Host": "evil.example"},
    )
    local = settings.model_copy(update={"public_url": ""})
    run_jobs(local)
    text = mailbox.mails[0].get_content()
    assert "evil.example" not in text
    assert "http://127.0.0.1:8000/reset-password/" in text


def test_an_invited_account_chooses_its_first_password(
    client: FlaskClient, admin: Person, settings: Settings, run_jobs: RunJobs, mailbox: Mailbox
) -> None:
    body = {"user": {"username": "owner", "email": "owner@example.org"}}
    client.post("/client/list/", headers=admin.headers(), json=body)
    assert run_jobs(settings) == 1
    assert mailbox.mails[0]["To"] == "owner@example.org"
    assert client.post(f"/client{mailbox.link()}/", json={"password": NEW}).status_code == 201
    assert sign_in(client, NEW) == 201


def test_without_a_mail_server_the_mail_is_kept_in_the_data_folder(
    client: FlaskClient, owner: Person, settings: Settings, run_jobs: RunJobs
) -> None:
    client.post("/client/password-reset/", json={"email": owner.email})
    without = settings.model_copy(update={"smtp_url": ""})
    run_jobs(without)
    [kept] = Path(without.data_dir, "mail").glob("*.eml")
    assert "/reset-password/" in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0


def test_without_redis_nobody_is_told_that_a_mail_is_coming(
    make_app: Callable[..., Flask],
) -> None:
    lonely = make_app(redis_url="unix:///nowhere/redis.sock").test_client()
    answer = lonely.post("/client/password-reset/", json={"email": "a@example.org"})
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers


def test_streams_of_the_old_password_are_told_to_end(
    app: Flask,
    client: FlaskClient,
    owner: Person,
    ask: Callable[[str], Any],
    mailbox: Mailbox,
) -> None:
    heard: list[dict[str, Any]] = []
    live = app.extensions["weft_live"]
    live.hub.on_control(heard.append)
    ask(owner.email)
    client.post(f"/client{mailbox.link()}/", json={"password": NEW})
    eventually(lambda: heard, what="the revocation is announced")
    [message] = heard
    assert message["type"] == "revoked"
    assert message["account_id"] == owner.id
    assert None in message["credential_ids"]  # Basic has no row of its own
