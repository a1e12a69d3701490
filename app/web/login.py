"""Dashboard sessions: the cookie holds a credential's secret, and Flask-Login shows who it is.

`current_user` in templates is the identity that every other carrier gets too.
"""

from __future__ import annotations

from typing import Any

from flask import Request, g, request, session
from flask_login import UserMixin
from sqlalchemy.orm import Session

from app.core.clock import utc_now
from app.core.domain.accounts import CredentialKind, Identity
from app.core.domain.nodes import clean_text
from app.core.services import credentials
from app.extensions import login_manager
from app.web.auth import SESSION_SECRET, find_identity

login_manager.login_view = "dashboard.show_sign_in"


class SignedIn(UserMixin):  # type: ignore[misc]
    """Whoever is signed in, as Flask-Login and the templates want it."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.id = identity.account_id
        self.username = identity.username
        self.email = identity.email
        self.role = identity.role
        self.is_admin = identity.is_admin

    def get_id(self) -> str:
        """The account's id, as text."""
        return str(self.id)


def find_signed_in() -> SignedIn | None:
    """Who calls, by the one rule of identity; None for a visitor."""
    identity = find_identity()
    return SignedIn(identity) if identity is not None else None


@login_manager.request_loader  # type: ignore[untyped-decorator]
def load_from_request(_request: Request) -> SignedIn | None:
    """Flask-Login asks who the request's credential belongs to."""
    return find_signed_in()


@login_manager.user_loader  # type: ignore[untyped-decorator]
def load_by_id(_id: str) -> SignedIn | None:
    """Never by the id in a cookie: only a live credential opens an account."""
    return find_signed_in()


def begin_session(database: Session, account_id: int) -> None:
    """Sign the browser in: a fresh credential and a fresh cookie. The caller commits."""
    agent = clean_text(str(request.headers.get("User-Agent", "")), 255)
    issued = credentials.issue_session(database, account_id, now=utc_now(), name=agent)
    session.clear()
    session[SESSION_SECRET] = issued.secret
    session.permanent = True
    g.pop("identity", None)


def end_session(database: Session) -> tuple[int, list[int]] | None:
    """Sign the browser out; the account and credentials to announce. The caller commits."""
    identity = find_identity()
    session.clear()
    if identity is None or identity.credential_id is None:
        return None
    if identity.credential_kind is not CredentialKind.SESSION:
        return None
    credentials.end_credential(database, identity.credential_id, now=utc_now())
    return identity.account_id, [identity.credential_id]


def session_identity(user: Any) -> Identity:
    """The identity behind `current_user`."""
    found: Identity = user.identity
    return found
