"""The way to Google and back, in a browser that keeps the page's policy."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage, sign_in
from tests.fixtures.accounts import Person
from tests.fixtures.google import Issuer

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser-things")]


def test_with_google_from_the_button_to_the_wanted_page(
    new_page: OpenPage, issuer: Issuer, owner: Person
) -> None:
    page = new_page()
    answers: list[str] = []
    page.on("response", lambda got: answers.append(got.url))
    page.goto("/keys")

    page.get_by_role("link", name="Continue with Google").click()
    page.wait_for_url("**/keys")
    expect(page.get_by_role("heading", name="API keys", level=1)).to_be_visible()

    assert any(url.startswith(issuer.authorize_url) for url in answers)
    assert not any("id_token=" in url.partition("#")[0] for url in answers)
    page.go_back()
    assert "id_token" not in page.evaluate("location.href + document.referrer")


def test_who_cancels_at_google_is_told_and_may_use_the_password(
    new_page: OpenPage, issuer: Issuer, owner: Person
) -> None:
    issuer.denies = True
    page = new_page()
    page.goto("/sign-up")
    page.get_by_role("link", name="Continue with Google").click()

    expect(page.get_by_role("alert")).to_contain_text("did not finish")
    assert page.evaluate("location.hash") == ""
    sign_in(page, owner)


def test_a_token_pushed_into_the_return_page_signs_nobody_in(
    new_page: OpenPage, issuer: Issuer, owner: Person
) -> None:
    page = new_page()
    page.goto(f"/sign-in/google/return#state=x&id_token={issuer.token()}")

    expect(page.get_by_role("alert")).to_contain_text("began elsewhere")
    page.goto("/sign-in/google/return")
    page.wait_for_url("**/sign-in")
    sign_in(page, owner)
