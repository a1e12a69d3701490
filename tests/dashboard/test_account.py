"""The account's own page."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from flask import Flask
from sqlalchemy.orm import Session, sessionmaker

from app.blueprints.dashboard.browsers import browser_name
from app.core.models import Account
from app.core.services import credentials
from tests.dashboard.conftest import Browser
from tests.fixtures.accounts import PASSWORD, Person


def test_the_profile_can_be_changed(browser: Browser) -> None:
    answer = browser.send("/account", username="owner2", email="o2@example.org", name="O Two")
    page = browser.open(answer.location).text

    assert "The profile is saved." in page
    assert all(text in page for text in ("owner2", "o2@example.org", "O Two"))


def test_a_taken_name_is_refused_beside_its_field(browser: Browser, other: Person) -> None:
    answer = browser.send("/account", username="other", email="owner@example.org")

    assert answer.status_code == 400
    assert 'id="username-error"' in answer.text
    assert 'id="email-error"' not in answer.text


def test_a_new_password_keeps_this_browser_and_ends_the_others(
    app: Flask, browser: Browser, signed_in: Callable[[Person], Browser], owner: Person
) -> None:
    elsewhere = signed_in(owner)
    answer = browser.send(
        "/account/password", current_password=PASSWORD, new_password="another one 7"
    )

    assert "The password is changed." in browser.open(answer.location).text
    assert elsewhere.open("/").status_code == 303
    fresh = Browser(app.test_client())
    assert fresh.send("/sign-in", login="owner", password=PASSWORD).status_code == 401
    assert fresh.send("/sign-in", login="owner", password="another one 7").status_code == 303
    key = {"Authorization": f"Bearer {owner.api_key}"}
    assert app.test_client().get("/v1/models", headers=key).status_code == 200


def test_the_old_password_is_asked_for(browser: Browser) -> None:
    wrong = browser.send(
        "/account/password", current_password="no", new_password="another one 7"
    )
    short = browser.send("/account/password", current_password=PASSWORD, new_password="seven77")

    assert wrong.status_code == short.status_code == 400
    assert "That is not your password." in wrong.text
    assert "Use at least 8 characters." in short.text


def test_signing_out_everywhere_asks_first_and_ends_all_but_keys(
    app: Flask, browser: Browser, signed_in: Callable[[Person], Browser], owner: Person
) -> None:
    elsewhere = signed_in(owner)
    question = browser.part("/account/sign-out-everywhere")

    assert "<html" not in question.text
    assert elsewhere.open("/").status_code == 200

    assert browser.send("/account/sign-out-everywhere").location == "/sign-in"
    assert browser.open("/").status_code == 303
    assert elsewhere.open("/").status_code == 303
    token = {"Authorization": f"Token {owner.token}"}
    assert app.test_client().get("/v1/models", headers=token).status_code == 401
    key = {"Authorization": f"Bearer {owner.api_key}"}
    assert app.test_client().get("/v1/models", headers=key).status_code == 200


def test_sessions_are_listed_and_one_can_be_ended(
    app: Flask, browser: Browser, owner: Person
) -> None:
    visitor = Browser(app.test_client())
    visitor.client.environ_base["HTTP_USER_AGENT"] = "Phone <b>1</b>"
    visitor.send("/sign-in", login="owner", password=PASSWORD)
    assert visitor.open("/").status_code == 200

    page = browser.open("/account").text
    assert "Phone &lt;b&gt;1&lt;/b&gt;" in page
    assert page.count("This one") == 1
    assert owner.session_secret not in page
    newest = re.findall(r"/account/sessions/([0-9a-f]{24})/end", page)[0]

    answer = browser.send(f"/account/sessions/{newest}/end")
    assert "That session has ended." in browser.open(answer.location).text
    assert visitor.open("/").status_code == 303
    assert browser.open("/").status_code == 200


def test_a_key_is_not_a_session(
    browser: Browser, sessions: sessionmaker[Session], owner: Person
) -> None:
    with sessions() as session:
        [key] = credentials.list_api_keys(session, owner.id)

    assert key.uid not in browser.open("/account").text
    assert browser.send(f"/account/sessions/{key.uid}/end").status_code == 404


@pytest.mark.parametrize(
    ("says", "shown"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
         "Firefox on Linux"),
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
         "Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0", "Edge on Windows"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 "
         "(KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1", "Safari on iPhone"),
        ("Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 Chrome/142.0 Mobile Safari/537.36",
         "Chrome on Android"),
        ("curl/8.14.1", "curl"),
        ("x" * 300, "x" * 60),
        ("", ""),
    ],
)  # fmt: skip
def test_browsers_are_named_as_people_know_them(says: str, shown: str) -> None:
    assert browser_name(says) == shown


def test_who_signs_in_with_google_alone_is_not_asked_for_a_password(
    browser: Browser, owner: Person, sessions: sessionmaker[Session]
) -> None:
    with sessions.begin() as session:
        session.get_one(Account, owner.id).password_hash = None

    page = browser.open("/account").text

    assert 'name="current_password"' not in page
    assert 'href="/forgot-password"' in page
