"""The pages for a password that was lost."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from app.config import Settings
from tests.fixtures.accounts import Person
from tests.fixtures.mail import Mailbox


@pytest.fixture
def settings(settings: Settings, mailbox: Mailbox) -> Settings:
    """Settings of a hub that has a mail server."""
    return settings.model_copy(update={"smtp_url": mailbox.url})


def token_of(client: FlaskClient, path: str) -> str:
    page = client.get(path).get_data(as_text=True)
    return page.split('name="csrf_token" value="')[1].split('"')[0]


def test_a_forgotten_password_is_replaced_by_way_of_a_mail(
    client: FlaskClient,
    owner: Person,
    settings: Settings,
    run_jobs: Callable[[Settings], int],
    mailbox: Mailbox,
) -> None:
    assert "/forgot-password" in client.get("/sign-in").get_data(as_text=True)
    form = {"email": owner.email, "csrf_token": token_of(client, "/forgot-password")}
    assert "on its way" in client.post("/forgot-password", data=form).get_data(as_text=True)
    run_jobs(settings)

    link = mailbox.link()
    short = client.post(link, data={"password": "short", "csrf_token": token_of(client, link)})
    assert short.status_code == 400
    new = {"password": "a fresh password", "csrf_token": token_of(client, link)}
    assert client.post(link, data=new).status_code == 200
    assert client.get(link).status_code == 400

    body = {"email": owner.email, "password": "a fresh password"}
    assert client.post("/client/login/", json=body).status_code == 201


def test_an_unknown_address_gets_the_same_page(client: FlaskClient, owner: Person) -> None:
    def page(email: str) -> str:
        form = {"email": email, "csrf_token": token_of(client, "/forgot-password")}
        answer = client.post("/forgot-password", data=form).get_data(as_text=True)
        # A CSRF token tells the second in which it was made.
        return re.sub(r'csrf.token" (content|value)="[^"]+"', "", answer)

    assert page(owner.email) == page("nobody@example.org")


def test_what_is_no_address_is_said_at_the_field(client: FlaskClient) -> None:
    form = {"email": "nobody", "csrf_token": token_of(client, "/forgot-password")}
    answer = client.post("/forgot-password", data=form)
    assert answer.status_code == 400
    assert "valid email" in answer.get_data(as_text=True)


def test_another_site_cannot_post_the_forms(client: FlaskClient, owner: Person) -> None:
    answer = client.post("/forgot-password", data={"email": owner.email})
    assert answer.status_code == 400
