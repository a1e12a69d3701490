"""Signing in with Google on the dashboard, against a real issuer on loopback."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import redis
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import rsa
from flask import Flask
from sqlalchemy.orm import Session, sessionmaker
from werkzeug.test import TestResponse

from app.config import Settings
from app.core.models import Account
from tests.dashboard.conftest import Browser
from tests.fixtures.accounts import PASSWORD, Person
from tests.fixtures.google import CLIENT_ID, Issuer

RETURN = "/sign-in/google/return"
STALE = "That sign-in began elsewhere"
REFUSED = "What Google sent could not be accepted."


@pytest.fixture
def settings(settings: Settings, issuer: Issuer) -> Settings:
    """Settings of a hub that trusts the issuer."""
    return settings.model_copy(
        update={
            "google_client_id": CLIENT_ID,
            "google_certs_url": issuer.url,
            "google_authorize_url": issuer.authorize_url,
            "public_url": "http://localhost",
        }
    )


@dataclass
class Trip:
    """A browser's way to the issuer and back."""

    browser: Browser
    issuer: Issuer

    def leave(self, next: str = "") -> dict[str, str]:
        """Press the button; what the issuer is asked."""
        answer = self.browser.open("/sign-in/google", query_string={"next": next})
        assert answer.status_code == 303
        assert answer.location.startswith(f"{self.issuer.authorize_url}?")
        return dict(parse_qsl(urlsplit(answer.location).query))

    def come_back(self, asked: dict[str, str], **changes: str) -> TestResponse:
        """Post what the script finds in the fragment."""
        fragment = dict(parse_qsl(urlsplit(self.issuer.answer_to(asked)).fragment))
        sent = {name: fragment.get(name, "") for name in ("state", "id_token", "error")}
        return self.browser.send(RETURN, **{**sent, **changes})

    def is_signed_in(self) -> bool:
        return self.browser.open("/account").status_code == 200


@pytest.fixture
def trip(visitor: Browser, issuer: Issuer) -> Trip:
    """A visitor who wants to come in with Google."""
    return Trip(visitor, issuer)


def is_refused(trip: Trip, answer: TestResponse, said: str, status: int = 401) -> bool:
    """Whether it is the sign-in page, with this sentence, and nobody is in."""
    return (
        answer.status_code == status
        and said in answer.text
        and 'name="password"' in answer.text
        and not trip.is_signed_in()
    )


def test_pages_have_the_button_only_where_google_is_set_up(
    visitor: Browser, make_app: Callable[..., Flask]
) -> None:
    without = Browser(make_app(google_client_id="").test_client())

    for path in ("/sign-in", "/sign-up"):
        assert "Continue with Google" in visitor.open(path).text
        assert "Google" not in without.open(path).text
    assert without.open("/sign-in/google").status_code == 404
    assert without.open(RETURN).status_code == 404
    assert without.send(RETURN, state="x", id_token="a.b.c").status_code == 404


def test_the_question_names_our_own_address(trip: Trip) -> None:
    asked = trip.leave()

    assert asked.pop("state") != asked.pop("nonce")
    assert asked == {
        "client_id": CLIENT_ID,
        "response_type": "id_token",
        "scope": "openid email profile",
        "redirect_uri": f"http://localhost{RETURN}",
        "prompt": "select_account",
    }


def test_from_another_address_of_the_hub_it_goes_home_first_and_once(
    make_app: Callable[..., Flask],
) -> None:
    browser = Browser(make_app(public_url="https://weft.example").test_client())

    first = browser.open("/sign-in/google?next=/runs", headers={"Host": "evil.example"})
    again = browser.open(first.location.removeprefix("https://weft.example"))

    assert first.location == "https://weft.example/sign-in/google?next=/runs&moved=1"
    asked = dict(parse_qsl(urlsplit(again.location).query))
    assert asked["redirect_uri"] == f"https://weft.example{RETURN}"


def test_every_question_is_another(trip: Trip) -> None:
    first, second = trip.leave(), trip.leave()

    assert first["state"] != second["state"]
    assert first["nonce"] != second["nonce"]


def test_a_new_address_makes_an_account_and_signs_in(trip: Trip) -> None:
    answer = trip.come_back(trip.leave())

    assert (answer.status_code, answer.location) == (303, "/")
    assert "owner@example.org" in trip.browser.open("/account").text


def test_a_known_address_opens_its_account_and_what_was_wanted(
    trip: Trip, owner: Person
) -> None:
    answer = trip.come_back(trip.leave("/runs?state=failed"))

    assert (answer.status_code, answer.location) == (303, "/runs?state=failed")
    assert f"<dd>{owner.id}</dd>" in trip.browser.open("/account").text


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", f"/{'x' * 2000}"]
)
def test_only_our_own_pages_follow(trip: Trip, target: str) -> None:
    assert trip.come_back(trip.leave(target)).location == "/"


def test_the_session_is_another_one_afterwards(trip: Trip) -> None:
    asked = trip.leave()
    with trip.browser.client.session_transaction() as cookie:
        cookie["planted"] = "by somebody else"
    before = trip.browser.csrf_token()

    trip.come_back(asked)

    with trip.browser.client.session_transaction() as cookie:
        assert "planted" not in cookie
        assert "weft_google" not in cookie
    assert trip.browser.send("/sign-out", csrf_token=before).status_code == 400


@pytest.mark.parametrize("state", ["", "wrong", "\ud7ff", "x" * 10_000])
def test_another_state_is_refused_and_uses_the_question_up(
    trip: Trip, owner: Person, state: str
) -> None:
    asked = trip.leave("/runs")

    assert is_refused(trip, trip.come_back(asked, state=state), STALE)
    assert is_refused(trip, trip.come_back(asked), STALE)


def test_an_answer_without_a_question_is_refused(trip: Trip, issuer: Issuer) -> None:
    token = issuer.token()

    for state in ("", "x"):
        answer = trip.browser.send(RETURN, state=state, id_token=token)
        assert is_refused(trip, answer, STALE)


def test_an_answer_is_taken_once_even_from_a_copy_of_the_cookie(
    app: Flask, trip: Trip, owner: Person
) -> None:
    asked = trip.leave()
    with trip.browser.client.session_transaction() as cookie:
        copied = dict(cookie)
    assert trip.come_back(asked).status_code == 303

    thief = Trip(Browser(app.test_client()), trip.issuer)
    with thief.browser.client.session_transaction() as cookie:
        cookie.update(copied)

    assert is_refused(thief, thief.come_back(asked), STALE)


def test_a_question_of_long_ago_is_refused(trip: Trip, owner: Person) -> None:
    asked = trip.leave()
    with trip.browser.client.session_transaction() as cookie:
        cookie["weft_google"] = {**cookie["weft_google"], "at": int(time.time()) - 601}

    assert is_refused(trip, trip.come_back(asked), STALE)


def test_somebody_elses_question_is_not_answered(
    app: Flask, trip: Trip, issuer: Issuer, owner: Person
) -> None:
    """Signing a victim in to the attacker's account takes the victim's own state."""
    attacker = Trip(Browser(app.test_client()), issuer)
    asked = attacker.leave()
    trip.leave()

    assert is_refused(trip, trip.come_back(asked), STALE)


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"nonce": 7},
        {"exp": int(time.time()) - 3600, "iat": int(time.time()) - 7200},
        {"aud": "another-app"},
        {"iss": "https://evil.example"},
        {"key": rsa.generate_private_key(65537, 2048)},
    ],
    ids=["another nonce", "no nonce", "a number", "expired", "audience", "issuer", "forged"],
)
def test_a_token_that_is_not_good_is_refused(
    trip: Trip, owner: Person, changes: dict[str, Any]
) -> None:
    asked = trip.leave("/runs")
    token = trip.issuer.token(**{"nonce": asked["nonce"], **changes})

    answer = trip.come_back(asked, id_token=token)

    assert is_refused(trip, answer, REFUSED)
    assert 'name="next" value="/runs"' in answer.text


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "x" * 9000])
def test_noise_is_refused(trip: Trip, token: str) -> None:
    assert is_refused(trip, trip.come_back(trip.leave(), id_token=token), REFUSED)


def test_who_cancels_at_google_is_back_at_the_sign_in(trip: Trip, owner: Person) -> None:
    trip.issuer.denies = True
    answer = trip.come_back(trip.leave("/runs"))

    assert is_refused(trip, answer, "You did not finish signing in with Google.")
    assert 'name="next" value="/runs"' in answer.text
    assert 'action="/sign-in"' in answer.text
    signed_in = trip.browser.send("/sign-in", login="owner", password=PASSWORD, next="/runs")
    assert signed_in.location == "/runs"


def test_an_unverified_address_opens_nothing(trip: Trip, owner: Person) -> None:
    asked = trip.leave()
    token = trip.issuer.token(nonce=asked["nonce"], email_verified=False)

    answer = trip.come_back(asked, id_token=token)

    assert is_refused(trip, answer, "has not verified your e-mail address", 400)


def test_a_disabled_account_stays_shut(
    trip: Trip, owner: Person, sessions: sessionmaker[Session]
) -> None:
    with sessions.begin() as session:
        session.execute(sa.update(Account).values(is_active=False))

    answer = trip.come_back(trip.leave())

    assert is_refused(trip, answer, "This account is disabled.")


def test_an_address_of_another_google_user_opens_nothing(trip: Trip, owner: Person) -> None:
    trip.come_back(trip.leave())
    trip.browser.send("/sign-out")
    asked = trip.leave()

    answer = trip.come_back(asked, id_token=trip.issuer.token(nonce=asked["nonce"], sub="2"))

    assert is_refused(trip, answer, "belongs to another Google account here")


def test_closed_registration_is_closed_here_too(
    make_app: Callable[..., Flask], issuer: Issuer
) -> None:
    trip = Trip(Browser(make_app(open_signup=False).test_client()), issuer)

    answer = trip.come_back(trip.leave())

    assert is_refused(trip, answer, "registration is closed", 403)


def test_without_googles_keys_it_says_so(trip: Trip) -> None:
    trip.issuer.is_broken = True

    answer = trip.come_back(trip.leave())

    assert is_refused(trip, answer, "asked right now", 503)
    assert int(answer.headers["Retry-After"]) > 0


def test_without_redis_people_still_come_in(
    trip: Trip, app: Flask, owner: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = redis.Redis(host="127.0.0.1", port=1)
    monkeypatch.setitem(app.extensions, "weft_redis", nowhere)

    assert trip.come_back(trip.leave()).status_code == 303


def test_a_foreign_page_cannot_post_the_answer(trip: Trip, owner: Person) -> None:
    asked = trip.leave()
    fragment = dict(parse_qsl(urlsplit(trip.issuer.answer_to(asked)).fragment))

    assert trip.browser.client.post(RETURN, data=fragment).status_code == 400
    assert not trip.is_signed_in()


def test_the_signed_in_are_not_sent_to_google(browser: Browser) -> None:
    answer = browser.open("/sign-in/google", query_string={"next": "/runs"})

    assert answer.location == "/runs"


def test_the_page_that_takes_the_answer_has_no_script_of_its_own(visitor: Browser) -> None:
    answer = visitor.open(RETURN)

    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert "js/google.js" in answer.text
