"""What every door does with accounts: let people in, sign them up, make their JWTs."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_network

from flask import current_app
from sqlalchemy.orm import Session

from app.core.clock import utc_now
from app.core.domain.errors import Forbidden
from app.core.models import Account
from app.core.outbound import OutboundPolicy
from app.core.services import accounts, credentials, google_signin, signin
from app.core.services.google_signin import GoogleVerifier
from app.web.context import redis_client, remote_address, settings, signin_policy
from app.web.password_mail import request_link_notice

# The key set's URL is the operator's own setting, and may lead into a private network.
_OPERATORS_OWN = OutboundPolicy((ip_network("0.0.0.0/0"), ip_network("::/0")))


def check_signup_is_open() -> None:
    """Raise Forbidden when strangers may not register here."""
    if not settings().open_signup:
        raise Forbidden("Registration is closed on this hub. Ask its admin for an account.")


def sign_up(session: Session, new: accounts.NewAccount) -> Account:
    """Register an account. Raises Forbidden, InvalidInput, Taken."""
    check_signup_is_open()
    return accounts.register_account(
        session, new, now=utc_now(), hash_profile=settings().argon2_profile
    )


def sign_in(session: Session, login: str, password: str) -> Account:
    """The account that an e-mail or user name and a password open.

    Raises Unauthenticated, and RateLimited after too many failures over all doors together.
    """
    return signin.check_password(
        session, redis_client(), login=login, password=password,
        address=remote_address(), policy=signin_policy(), now=utc_now(),
    )  # fmt: skip


def issue_jwt(session: Session, account: Account, lifetime: timedelta) -> credentials.TokenPair:
    """Access and refresh JWTs of a sign-in that has just been checked."""
    return credentials.issue_jwt(
        session, account, secret_key=settings().secret_key, lifetime=lifetime, now=utc_now()
    )


def refresh_jwt(
    session: Session, refresh_token: str, lifetime: timedelta
) -> tuple[Account, credentials.TokenPair]:
    """A new pair for a refresh token that still opens something. Raises Unauthenticated."""
    return credentials.refresh_jwt(
        session,
        refresh_token,
        secret_key=settings().secret_key,
        lifetime=lifetime,
        now=utc_now(),
    )


def sign_in_with_google(session: Session, token: str, *, nonce: str | None = None) -> Account:
    """The account of whoever holds this Google ID token, made if need be.

    A token that is not for this `nonce`, when there is one, is refused. An account that has a
    password is told by mail when it is linked. Raises Unauthenticated, EmailNotVerified,
    Forbidden, and Unavailable when it is not set up.
    """
    profile = _google_verifier().verify(token, nonce=nonce)
    account, is_new_link = google_signin.find_or_register(
        session,
        profile,
        may_register=settings().open_signup,
        ip=remote_address(),
        now=utc_now(),
    )
    if is_new_link and account.password_hash is not None:
        session.commit()  # the mail may not come before what it speaks of
        request_link_notice(account.id)
    return account


def _google_verifier() -> GoogleVerifier:
    kept = current_app.extensions
    if "weft_google" not in kept:
        chosen = settings()
        kept["weft_google"] = GoogleVerifier(
            chosen.google_client_id, chosen.google_certs_url, _OPERATORS_OWN
        )
    found: GoogleVerifier = kept["weft_google"]
    return found
