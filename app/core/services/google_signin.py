"""Signing in with Google: an ID token is checked against Google's published keys."""

from __future__ import annotations

import hmac
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jwt as pyjwt
import sqlalchemy as sa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy.orm import Session

from app.core.domain.errors import (
    DomainError,
    Forbidden,
    InvalidInput,
    Taken,
    Unauthenticated,
    Unavailable,
)
from app.core.models import Account
from app.core.outbound import OutboundPolicy, fetch
from app.core.services import accounts

ISSUERS = frozenset({"accounts.google.com", "https://accounts.google.com"})
MAX_TOKEN_CHARACTERS = 8192
CLOCK_SKEW_SECONDS = 10
MAX_KEYS_BYTES = 256 * 1024
FETCH_SECONDS = 10.0
# Keys without a Cache-Control are kept for an hour; an unknown key id fetches at most so often.
DEFAULT_KEPT_SECONDS = 3600
REFETCH_SECONDS = 30
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age=(\d{1,9})")


@dataclass(frozen=True, slots=True)
class GoogleProfile:
    """What Google vouches for."""

    sub: str
    email: str
    is_email_verified: bool
    name: str
    picture: str | None


class EmailNotVerified(InvalidInput):
    """Google has not verified this e-mail address."""


class AccountDisabled(Unauthenticated):
    """This account is disabled."""


class LinkedToAnother(Unauthenticated):
    """This e-mail address belongs to another Google account here."""


class GoogleVerifier:
    """Checks ID tokens for one client id. One per process: it keeps the key set."""

    def __init__(self, client_id: str, certs_url: str, policy: OutboundPolicy) -> None:
        self._client_id = client_id
        self._certs_url = certs_url
        self._policy = policy
        self._keys: dict[str, str] = {}
        self._fetched_at = float("-inf")
        self._good_until = float("-inf")

    def verify(self, token: str, *, nonce: str | None = None) -> GoogleProfile:
        """Who holds this token, which must carry this nonce. Raises Unauthenticated for a bad one.

        Raises Unavailable when sign-in with Google is not set up, or its keys cannot be had.
        """
        if not self._client_id:
            raise Unavailable("Signing in with Google is not set up on this hub.")
        claims = self._decode(token)
        sub, email = claims.get("sub"), claims.get("email")
        if not isinstance(sub, str) or not sub or not isinstance(email, str):
            raise _refused()
        if claims.get("iss") not in ISSUERS:
            raise _refused()
        if nonce is not None and not is_same(nonce, claims.get("nonce")):
            raise _refused()
        picture = claims.get("picture")
        return GoogleProfile(
            sub=sub[:64],
            email=email,
            is_email_verified=claims.get("email_verified") in (True, "true"),
            name=str(claims.get("name") or "")[:150],
            picture=picture if _is_link(picture) else None,
        )

    def _decode(self, token: str) -> Mapping[str, Any]:
        from google.auth import exceptions as google_exceptions  # 9 MB, and few hubs use it
        from google.auth import jwt as google_jwt

        if len(token) > MAX_TOKEN_CHARACTERS:
            raise _refused()
        try:
            key_id = google_jwt.decode_header(token).get("kid")  # type: ignore[no-untyped-call]
            keys = self._keys_with(key_id if isinstance(key_id, str) else "")
            claims: Mapping[str, Any] = google_jwt.decode(  # type: ignore[no-untyped-call]
                token, certs=keys, audience=self._client_id,
                clock_skew_in_seconds=CLOCK_SKEW_SECONDS,
            )  # fmt: skip
        except (google_exceptions.GoogleAuthError, ValueError, TypeError, KeyError):
            raise _refused() from None
        return claims

    def _keys_with(self, key_id: str) -> dict[str, str]:
        """The key set; fetched anew when it is old, or does not hold this key yet."""
        now = time.monotonic()
        is_unknown = key_id not in self._keys and now - self._fetched_at > REFETCH_SECONDS
        if now >= self._good_until or is_unknown:
            self._fetch(now)
        return self._keys

    def _fetch(self, now: float) -> None:
        answer = fetch(
            self._policy, self._certs_url, max_bytes=MAX_KEYS_BYTES,
            timeout_seconds=FETCH_SECONDS,
        )  # fmt: skip
        try:
            self._keys = read_keys(json.loads(answer.body))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Unavailable("Google's key set cannot be read.") from error
        found = _MAX_AGE.search(answer.headers.get("cache-control", ""))
        kept = int(found.group(1)) if found else DEFAULT_KEPT_SECONDS
        self._fetched_at = now
        self._good_until = now + min(kept, 86_400)


def read_keys(document: Mapping[str, Any]) -> dict[str, str]:
    """Key ids and PEM texts, from a map of X.509 certificates or from a JWK set."""
    if "keys" not in document:
        return {str(key_id): str(pem) for key_id, pem in document.items()}
    found = {}
    for key in document["keys"]:
        if key.get("kty") != "RSA" or key.get("use", "sig") != "sig":
            continue
        public = pyjwt.PyJWK(key, algorithm="RS256").key
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        found[str(key["kid"])] = pem.decode("ascii")
    return found


def find_or_register(
    session: Session, profile: GoogleProfile, *, may_register: bool, ip: str, now: datetime
) -> tuple[Account, bool]:
    """The account of this Google user: by `sub`, else by verified e-mail, else a new one.

    And whether an account that was here before was linked just now.

    Raises EmailNotVerified, Forbidden when registration is closed, AccountDisabled, and
    LinkedToAnother when somebody else's Google account has this address here.
    """
    account = session.scalar(sa.select(Account).where(Account.google_sub == profile.sub))
    is_new_link = account is None
    if account is None:
        if not profile.is_email_verified:
            raise EmailNotVerified("Google has not verified this e-mail address.")
        email = accounts.normal_email(profile.email)
        account = session.scalar(sa.select(Account).where(Account.email == email))
        if account is None:
            new = _register(session, profile, may_register=may_register, ip=ip, now=now)
            return new, False
        if account.google_sub is not None:
            raise LinkedToAnother
        account.google_sub = profile.sub
        account.profile_image_url = account.profile_image_url or profile.picture
        account.updated_at = now
        session.flush()
    if not account.is_active:
        raise AccountDisabled
    return account, is_new_link


def _register(
    session: Session, profile: GoogleProfile, *, may_register: bool, ip: str, now: datetime
) -> Account:
    if not may_register:
        raise Forbidden("Registration is closed on this hub. Ask its admin for an account.")
    new = accounts.NewAccount(
        email=profile.email, password=None, name=profile.name, ip=ip,
        google_sub=profile.sub, profile_image_url=profile.picture,
    )  # fmt: skip
    try:
        # Without a password there is nothing to hash.
        return accounts.register_account(session, new, now=now, hash_profile="default")
    except Taken as error:
        raise DomainError("That account was made just now. Sign in again.") from error


def is_same(secret: str, given: object) -> bool:
    """Whether somebody gave this secret, compared in constant time."""
    return isinstance(given, str) and hmac.compare_digest(
        secret.encode(), given.encode(errors="replace")
    )


def _is_link(picture: object) -> bool:
    return isinstance(picture, str) and picture.startswith("https://") and len(picture) <= 500


def _refused() -> Unauthenticated:
    return Unauthenticated("Invalid Google token")
