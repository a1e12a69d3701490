"""dualquery: register, sign in, who am I."""

from __future__ import annotations

from datetime import timedelta

from app.blueprints.dualquery import account_translate as translate
from app.blueprints.dualquery.account_schemas import (
    AccessToken,
    GoogleBody,
    Health,
    LoginBody,
    RegisterBody,
    User,
)
from app.blueprints.dualquery.api import api
from app.core.domain.errors import InvalidInput, Taken
from app.core.services import accounts, plans, profiles
from app.web import doors
from app.web.auth import current_identity
from app.web.context import remote_address
from app.web.transaction import reading, unit_of_work

ACCESS_LIFETIME = timedelta(hours=24)


@api.route(
    "POST", "/api/auth/register", body=RegisterBody, answer=User, status=201, is_open=True
)
def register(body: RegisterBody) -> User:
    """Register a new account."""
    new = accounts.NewAccount(
        email=body.email, password=body.password, name=body.name, ip=remote_address()
    )
    try:
        with unit_of_work() as session:
            account = doors.sign_up(session, new)
            usage = plans.count_usage(session, account.id)
            profile = profiles.profile_of(account)
    except Taken:
        raise InvalidInput("Email already registered") from None
    return translate.user_object(profile, usage)


@api.route("POST", "/api/auth/login", body=LoginBody, answer=AccessToken, is_open=True)
def login(body: LoginBody) -> AccessToken:
    """Sign in with an e-mail and a password."""
    with unit_of_work() as session:
        account = doors.sign_in(session, body.email, body.password)
        pair = doors.issue_jwt(session, account, ACCESS_LIFETIME)
    return AccessToken(access_token=pair.access_token)


@api.route("POST", "/api/auth/google", body=GoogleBody, answer=AccessToken, is_open=True)
def sign_in_with_google(body: GoogleBody) -> AccessToken:
    """Sign in with a Google ID token; a new account is made when nobody has its address."""
    with unit_of_work() as session:
        account = doors.sign_in_with_google(session, body.token)
        pair = doors.issue_jwt(session, account, ACCESS_LIFETIME)
    return AccessToken(access_token=pair.access_token)


@api.route("GET", "/api/auth/me", answer=User)
def show_me() -> User:
    """The account that calls, and what it has used."""
    session = reading()
    account = accounts.get_account(session, current_identity().account_id)
    usage = plans.count_usage(session, account.id)
    return translate.user_object(profiles.profile_of(account), usage)


@api.route("GET", "/health", answer=Health, is_open=True)
def show_health() -> Health:
    """That the hub answers."""
    return Health()
