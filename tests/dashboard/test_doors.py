"""Signing up, in and out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from tests.dashboard.conftest import Browser
from tests.fixtures.accounts import PASSWORD, Person

NEW = {"username": "grace", "email": "grace@example.org", "password": "a good password"}


def test_signing_up_signs_in(visitor: Browser) -> None:
    answer = visitor.send("/sign-up", **NEW)

    assert (answer.status_code, answer.location) == (303, "/")
    assert "grace@example.org" in visitor.open("/").text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"password": "short"}, "Use at least 8 characters."),
        ({"email": "nobody"}, "valid email"),
        ({"username": ""}, "Choose a user name."),
        ({"username": "owner"}, "already exists"),
    ],
)
def test_a_wrong_field_is_named_and_the_rest_is_kept(
    visitor: Browser, owner: Person, change: dict[str, str], said: str
) -> None:
    answer = visitor.send("/sign-up", **{**NEW, **change})

    assert answer.status_code == 400
    assert said in answer.text
    assert 'aria-invalid="true"' in answer.text
    assert NEW["password"] not in answer.text
    assert visitor.open("/").status_code == 303


def test_a_closed_hub_has_no_sign_up(make_app: Callable[..., Flask]) -> None:
    visitor = Browser(make_app(open_signup=False).test_client())

    assert visitor.open("/sign-up").status_code == 403
    assert visitor.send("/sign-up", **NEW).status_code == 403
    assert "Create an account" not in visitor.open("/sign-in").text


@pytest.mark.parametrize("name", ["owner", "owner@example.org"])
def test_name_or_address_and_password_sign_in(
    visitor: Browser, owner: Person, name: str
) -> None:
    answer = visitor.send("/sign-in", login=name, password=PASSWORD)

    assert (answer.status_code, answer.location) == (303, "/")
    assert visitor.open("/").status_code == 200
    assert "HttpOnly" in answer.headers["Set-Cookie"]
    assert "SameSite=Lax" in answer.headers["Set-Cookie"]


def test_a_wrong_password_says_no_more_than_that(visitor: Browser, owner: Person) -> None:
    known = visitor.send("/sign-in", login="owner", password="wrong")
    unknown = visitor.send("/sign-in", login="nobody", password="wrong")

    assert known.status_code == unknown.status_code == 401
    sentence = "That name and password don&#39;t fit."
    assert sentence in known.text
    assert sentence in unknown.text


def test_too_many_failures_are_held_back(make_app: Callable[..., Flask], owner: Person) -> None:
    visitor = Browser(make_app(signin_limit_per_minute=2).test_client())
    for _ in range(2):
        visitor.send("/sign-in", login="owner", password="wrong")

    answer = visitor.send("/sign-in", login="owner", password=PASSWORD)

    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    ("target", "lands_at"),
    [
        ("/runs?state=failed", "/runs?state=failed"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example/", "/"),
        ("javascript:alert(1)", "/"),
        ("", "/"),
    ],
)
def test_after_signing_in_only_our_own_pages_follow(
    visitor: Browser, owner: Person, target: str, lands_at: str
) -> None:
    answer = visitor.send("/sign-in", login="owner", password=PASSWORD, next=target)

    assert answer.location == lands_at


def test_signing_out_ends_the_session_wherever_its_cookie_went(
    app: Flask, browser: Browser, owner: Person
) -> None:
    copied = Browser(owner.signed_in(app.test_client()))

    assert browser.send("/sign-out").location == "/sign-in"
    assert browser.open("/").status_code == 303
    assert copied.open("/").status_code == 303


def test_the_signed_in_are_not_asked_again(browser: Browser) -> None:
    for path in ("/sign-in", "/sign-up"):
        answer: Any = browser.open(path)
        assert (answer.status_code, answer.location) == (303, "/")
