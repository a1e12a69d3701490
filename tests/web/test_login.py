"""The dashboard's sessions: cookies that hold a credential, and Flask-Login on top."""

from __future__ import annotations

import pytest
from flask import Flask, session
from flask_login import current_user
from sqlalchemy.orm import sessionmaker

from app.extensions import db
from app.web import login
from app.web.auth import SESSION_SECRET, find_identity
from tests.fixtures.accounts import Person


def test_a_fresh_session_is_that_accounts(app: Flask, owner: Person) -> None:
    with app.test_request_context(headers={"User-Agent": "Firefox"}):
        session["left over"] = "from a visitor"
        login.begin_session(db.session(), owner.id)
        assert session[SESSION_SECRET].startswith("ws_")
        assert "left over" not in session
        assert session.permanent
        identity = find_identity()
        assert identity is not None
        assert identity.account_id == owner.id
        db.session.rollback()


@pytest.mark.parametrize("carrier", ["bearer-key", "basic", "token"])
def test_current_user_is_whoever_calls(app: Flask, owner: Person, carrier: str) -> None:
    with app.test_request_context(headers=owner.headers(carrier)):
        assert current_user.is_authenticated
        assert (current_user.id, current_user.username) == (owner.id, owner.username)
        assert not current_user.is_admin


def test_current_user_is_nobody_for_a_visitor(app: Flask) -> None:
    with app.test_request_context():
        assert not current_user.is_authenticated


def test_an_id_in_the_cookie_is_not_enough(app: Flask, owner: Person) -> None:
    with app.test_request_context():
        session["_user_id"] = str(owner.id)
        assert not current_user.is_authenticated


def test_ending_a_session_ends_its_credential(
    app: Flask, owner: Person, sessions: sessionmaker
) -> None:
    with app.test_request_context():
        session[SESSION_SECRET] = owner.session_secret
        ended = login.end_session(db.session())
        db.session.commit()
        assert ended is not None
        assert ended[0] == owner.id
        assert SESSION_SECRET not in session
    with app.test_request_context():
        app.extensions["weft_identities"].clear()
        session[SESSION_SECRET] = owner.session_secret
        assert find_identity() is None


def test_signing_out_of_the_browser_leaves_api_keys_alone(app: Flask, owner: Person) -> None:
    with app.test_request_context(headers=owner.headers("x-api-key")):
        assert login.end_session(db.session()) is None
        db.session.rollback()
