"""API keys: shown once, masked afterwards, gone when revoked."""

from __future__ import annotations

import re
from collections.abc import Callable

from flask import Flask

from tests.dashboard.conftest import Browser
from tests.fixtures.accounts import Person


def created_secret(browser: Browser, name: str = "laptop") -> str:
    answer = browser.send("/keys", name=name)
    assert answer.status_code == 201
    found = re.search(r'id="secret"[^>]*><code>(sk-[\w-]+)</code>', answer.text)
    assert found
    return found[1]


def test_a_key_works_and_is_shown_once(app: Flask, browser: Browser) -> None:
    secret = created_secret(browser)
    headers = {"Authorization": f"Bearer {secret}"}

    assert app.test_client().get("/v1/models", headers=headers).status_code == 200
    listed = browser.open("/keys").text
    assert "laptop" in listed
    assert secret not in listed
    assert f"{secret[:7]}…" in listed or secret[-4:] in listed


def test_a_key_needs_a_name(browser: Browser) -> None:
    answer = browser.send("/keys", name="  ")

    assert answer.status_code == 400
    assert 'id="name-error"' in answer.text


def test_the_eleventh_key_is_refused(browser: Browser) -> None:
    for number in range(9):  # the person has one already
        created_secret(browser, f"key {number}")

    answer = browser.send("/keys", name="one more")

    assert answer.status_code == 409
    assert "at most 10 API keys" in answer.text


def test_revoking_asks_first_and_takes_effect_at_once(app: Flask, browser: Browser) -> None:
    secret = created_secret(browser)
    headers = {"Authorization": f"Bearer {secret}"}
    link = re.search(
        r'href="(/keys/[^"]+/revoke)" data-dialog>Revoke<[^>]+> laptop',
        browser.open("/keys").text,
    )
    assert link

    question = browser.part(link[1])
    assert "Revoke “laptop”?" in question.text
    assert "<html" not in question.text
    assert "<html" in browser.open(link[1]).text
    assert app.test_client().get("/v1/models", headers=headers).status_code == 200

    assert browser.send(link[1]).location == "/keys"
    assert app.test_client().get("/v1/models", headers=headers).status_code == 401
    assert "laptop" not in browser.open("/keys").text


def test_nobody_sees_or_revokes_somebody_elses_key(
    browser: Browser, signed_in: Callable[[Person], Browser], outsider: Person
) -> None:
    created_secret(browser, "private key")
    link = re.search(r'href="(/keys/[^"]+/revoke)"', browser.open("/keys").text)
    assert link
    stranger = signed_in(outsider)

    assert "private key" not in stranger.open("/keys").text
    assert stranger.open(link[1]).status_code == 404
    assert stranger.send(link[1]).status_code == 404
    assert "private key" in browser.open("/keys").text
