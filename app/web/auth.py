"""Who calls: one rule for every carrier, on every path.

Carriers: Basic, `Authorization: Token`, `Authorization: Bearer` (key, token or JWT),
`X-API-Key`, and the dashboard's session cookie. Two at once are refused; on API paths a
cookie beside another carrier is ignored.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from flask import Flask, current_app, g, request, session
from flask_httpauth import HTTPBasicAuth, HTTPTokenAuth
from flask_wtf.csrf import CSRFError, validate_csrf
from wtforms import ValidationError

from app.core.clock import utc_now
from app.core.domain.accounts import CredentialKind, Identity
from app.core.domain.errors import (
    Forbidden,
    InvalidInput,
    TwoCredentials,
    Unauthenticated,
)
from app.core.models import Account
from app.core.services import credentials, signin
from app.extensions import db
from app.web.context import redis_client, remote_address, settings, signin_policy
from app.web.last_used import note_use
from app.web.uploads import FORM_TYPE, STREAMED

if TYPE_CHECKING:
    from werkzeug.datastructures import Authorization

# Revocation takes effect within a second: nobody is remembered for longer.
IDENTITY_SECONDS = 0.8
_CACHE_SIZE = 20_000
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# Servers join two headers of one name with a comma; no credential of ours has one.
_TWO_HEADERS = re.compile(r"\s*(basic|token|bearer)\s[^,]*,\s*(basic|token|bearer)\s", re.I)
_BEARER_KINDS = frozenset({CredentialKind.TOKEN, CredentialKind.API_KEY})
SESSION_SECRET = "weft_session"  # noqa: S105 - the name of a cookie's field

basic_auth = HTTPBasicAuth()
token_auth = HTTPTokenAuth(scheme="Token")
bearer_auth = HTTPTokenAuth(scheme="Bearer")
key_auth = HTTPTokenAuth(header="X-API-Key")


class IdentityCache:
    """Identities by the hash of the whole credential, each for under a second."""

    def __init__(self) -> None:
        self._entries: dict[bytes, tuple[float, Identity]] = {}

    def find(self, carrier: str, secret: str) -> Identity | None:
        """The identity, when it was looked up a moment ago."""
        entry = self._entries.get(_digest(carrier, secret))
        return entry[1] if entry is not None and entry[0] > time.monotonic() else None

    def remember(self, carrier: str, secret: str, identity: Identity) -> None:
        """Keep an identity that has just been looked up."""
        if len(self._entries) >= _CACHE_SIZE:
            self._entries.clear()
        self._entries[_digest(carrier, secret)] = (
            time.monotonic() + IDENTITY_SECONDS,
            identity,
        )

    def clear(self) -> None:
        """Forget everybody, at once: something was revoked."""
        self._entries.clear()


def _digest(carrier: str, secret: str) -> bytes:
    return hashlib.blake2b(f"{carrier}:{secret}".encode(), digest_size=32).digest()


@dataclass(frozen=True, slots=True)
class Carrier:
    """A credential as it was sent."""

    name: str
    secret: str
    verify: Callable[[], Identity | None]


def install_auth(app: Flask) -> None:
    """Give the app its caches."""
    app.extensions["weft_identities"] = IdentityCache()
    secret_key = app.extensions["weft_settings"].secret_key
    app.extensions["weft_passwords"] = signin.VerifiedPasswords(secret_key)


def find_identity() -> Identity | None:
    """Who calls; None when no credential was sent.

    Raises Unauthenticated for a wrong one, TwoCredentials for several.
    """
    if "identity" not in g:
        g.identity = _identify()
    found: Identity | None = g.identity
    return found


def current_identity() -> Identity:
    """Who calls. Raises Unauthenticated."""
    identity = find_identity()
    if identity is None:
        raise Unauthenticated("Authentication credentials were not provided.")
    return identity


def require_admin() -> Identity:
    """Who calls, when that is an admin. Raises Unauthenticated or Forbidden."""
    identity = current_identity()
    if not identity.is_admin:
        raise Forbidden("Only an admin may do that.")
    return identity


def refuse_two_carriers() -> None:
    """Raise TwoCredentials when the headers carry more than one, whatever they open."""
    sent = request.headers.get("Authorization", "")
    if _TWO_HEADERS.match(sent) or (sent and request.headers.get("X-API-Key")):
        raise TwoCredentials("Send one credential, not several.")


def _identify() -> Identity | None:
    carriers = _header_carriers()
    if len(carriers) > 1:
        raise TwoCredentials("Send one credential, not several.")
    if not carriers:
        return _session_identity()
    carrier = carriers[0]
    cache: IdentityCache = current_app.extensions["weft_identities"]
    identity = cache.find(carrier.name, carrier.secret)
    if identity is None:
        identity = carrier.verify()
        if identity is None:
            raise Unauthenticated("Could not validate credentials")
        cache.remember(carrier.name, carrier.secret, identity)
    return identity


def _header_carriers() -> list[Carrier]:
    found = []
    sent = request.headers.get("Authorization")
    if sent and _TWO_HEADERS.match(sent):
        raise TwoCredentials("Send one Authorization header, not several.")
    if sent:
        found.append(_authorization_carrier())
    key = request.headers.get("X-API-Key")
    if key:
        found.append(Carrier("key", key, partial(_by_secret, key)))
    return found


def _authorization_carrier() -> Carrier:
    scheme = request.headers["Authorization"].partition(" ")[0].lower()
    basic = basic_auth.get_auth() if scheme == "basic" else None
    if basic is not None and basic.username is not None:
        login, password = str(basic.username), str(basic.password)
        return Carrier(
            "basic", f"{len(login)}:{login}:{password}", partial(_by_password, basic)
        )
    for auth in (token_auth, bearer_auth):
        sent = auth.get_auth() if scheme == auth.scheme.lower() else None
        if sent is not None and sent.token:
            secret = sent.token.strip()
            return Carrier("bearer", secret, partial(_by_bearer, secret))
    raise Unauthenticated("Could not validate credentials")


def _by_secret(secret: str) -> Identity | None:
    session = db.session()
    found = credentials.identify_secret(session, secret, kinds=_BEARER_KINDS, now=utc_now())
    if found is not None:
        note_use(session, found)
    return found


def _by_bearer(secret: str) -> Identity | None:
    if secret.count(".") == 2:
        return credentials.identify_jwt(
            db.session(), secret, secret_key=settings().secret_key, now=utc_now()
        )
    return _by_secret(secret)


def _by_password(basic: Authorization) -> Identity | None:
    login, password = str(basic.username), str(basic.password)
    known: signin.VerifiedPasswords = current_app.extensions["weft_passwords"]
    remembered = known.find(login, password)
    if remembered is not None:
        account = db.session().get(Account, remembered[0])
        if account is not None and account.password_hash == remembered[1]:
            return credentials.identity_of(account, None)
    account = signin.check_password(
        db.session(), redis_client(), login=login, password=password,
        address=remote_address(), policy=signin_policy(), now=utc_now(),
    )  # fmt: skip
    known.remember(login, password, account)
    return credentials.identity_of(account, None)


def _session_identity() -> Identity | None:
    identity = peek_session()
    if identity is not None and request.method not in _SAFE_METHODS:
        _check_csrf()
    return identity


def peek_session() -> Identity | None:
    """Whose browser it is, before its body is read: for limits, never for rights.

    Whether a foreign page made it send this is not looked at.
    """
    secret = session.get(SESSION_SECRET)
    if not isinstance(secret, str):
        return None
    cache: IdentityCache = current_app.extensions["weft_identities"]
    identity = cache.find("session", secret)
    if identity is None:
        identity = credentials.identify_secret(
            db.session(), secret, kinds=frozenset({CredentialKind.SESSION}), now=utc_now()
        )
        if identity is None:
            session.clear()
            return None
        cache.remember("session", secret, identity)
    return identity


def _check_csrf() -> None:
    """A cookie proves who the browser is, not who made it send the request."""
    if g.get("csrf_checked"):
        return
    token = request.headers.get("X-CSRFToken")
    if token is None and request.endpoint in STREAMED and request.mimetype == FORM_TYPE:
        g.csrf_due = True  # who reads the body looks for the token, before it takes the file
        return
    if token is None and request.mimetype in {
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    }:
        token = request.form.get("csrf_token")
    try:
        validate_csrf(token)
    except (ValidationError, CSRFError):
        raise InvalidInput("The CSRF token is missing or wrong. Reload the page.") from None
    g.csrf_checked = True


def guard_api(
    open_endpoints: frozenset[str], *, allows_model_keys: bool = False
) -> Callable[[], None]:
    """A `before_request` that closes every route of a blueprint but the open ones.

    A wrong credential is refused on open routes too. A key that is bound to one model opens
    nothing but the doors that answer with that model.
    """

    def guard() -> None:
        if request.method == "OPTIONS":
            return
        identity = find_identity()
        if identity is None:
            if request.endpoint in open_endpoints:
                return
            raise Unauthenticated("Authentication credentials were not provided.")
        if identity.model_name is not None and not allows_model_keys:
            raise Forbidden(f"This key opens the model {identity.model_name} under /v1 only.")

    return guard
