"""aitip: register, sign in and out, API keys."""

from __future__ import annotations

from datetime import timedelta

from app.blueprints.aitip import account_translate as translate
from app.blueprints.aitip.account_schemas import (
    ApiKey,
    ApiKeyBody,
    LoginBody,
    Message,
    RefreshBody,
    RegisterBody,
    SignedIn,
    User,
)
from app.blueprints.aitip.api import api
from app.blueprints.aitip.envelope import Envelope, Page, PageQuery, meta_of
from app.core.clock import utc_now
from app.core.domain.accounts import CredentialKind
from app.core.domain.errors import NotFound
from app.core.ids import uid_from_uuid
from app.core.services import accounts, credentials, profiles
from app.web import doors
from app.web.auth import current_identity
from app.web.context import remote_address
from app.web.revocation import announce_revocation
from app.web.transaction import reading, unit_of_work

ACCESS_LIFETIME = timedelta(hours=2)


@api.route(
    "POST", "/api/v1/auth/register",
    body=RegisterBody, answer=Envelope[SignedIn], status=201, is_open=True,
)  # fmt: skip
def register(body: RegisterBody) -> Envelope[SignedIn]:
    """Register a new account and sign it in."""
    new = accounts.NewAccount(
        email=body.email, username=body.username, password=body.password, ip=remote_address()
    )
    with unit_of_work() as session:
        account = doors.sign_up(session, new)
        pair = doors.issue_jwt(session, account, ACCESS_LIFETIME)
        profile = profiles.profile_of(account)
    return Envelope(data=translate.signed_in(profile, pair))


@api.route(
    "POST", "/api/v1/auth/login", body=LoginBody, answer=Envelope[SignedIn], is_open=True
)
def login(body: LoginBody) -> Envelope[SignedIn]:
    """Sign in with an e-mail or a user name, and a password."""
    with unit_of_work() as session:
        account = doors.sign_in(session, body.login, body.password)
        pair = doors.issue_jwt(session, account, ACCESS_LIFETIME)
        profile = profiles.profile_of(account)
    return Envelope(data=translate.signed_in(profile, pair))


@api.route(
    "POST", "/api/v1/auth/refresh", body=RefreshBody, answer=Envelope[SignedIn], is_open=True
)
def refresh(body: RefreshBody) -> Envelope[SignedIn]:
    """Fresh tokens for a refresh token."""
    with unit_of_work() as session:
        account, pair = doors.refresh_jwt(session, body.refresh_token, ACCESS_LIFETIME)
        profile = profiles.profile_of(account)
    return Envelope(data=translate.signed_in(profile, pair))


@api.route("POST", "/api/v1/auth/logout", answer=Envelope[Message])
def logout() -> Envelope[Message]:
    """End the sign-in that calls: its access and refresh tokens open nothing any more."""
    identity = current_identity()
    ended: list[int] = []
    with unit_of_work() as session:
        if identity.credential_id and identity.credential_kind is not CredentialKind.API_KEY:
            credentials.end_credential(session, identity.credential_id, now=utc_now())
            ended.append(identity.credential_id)
    announce_revocation(identity.account_id, ended)
    return Envelope(data=Message(message="Signed out"))


@api.route("GET", "/api/v1/auth/me", answer=Envelope[User])
def show_me() -> Envelope[User]:
    """The account that calls."""
    account = accounts.get_account(reading(), current_identity().account_id)
    return Envelope(data=translate.user_object(profiles.profile_of(account)))


@api.route("GET", "/api/v1/api-keys", query=PageQuery, answer=Page[ApiKey])
def list_keys(query: PageQuery) -> Page[ApiKey]:
    """The account's API keys, newest first, masked."""
    keys = credentials.list_api_keys(reading(), current_identity().account_id)
    start = (query.page - 1) * query.page_size
    shown = [
        translate.api_key(credentials.key_info(key))
        for key in keys[start : start + query.page_size]
    ]
    return Page(data=shown, meta=meta_of(query, len(keys)))


@api.route("POST", "/api/v1/api-keys", body=ApiKeyBody, answer=Envelope[ApiKey], status=201)
def create_key(body: ApiKeyBody) -> Envelope[ApiKey]:
    """Make an API key. It is shown whole in this answer and never again."""
    with unit_of_work() as session:
        issued = credentials.issue_api_key(
            session, current_identity().account_id, name=body.name, now=utc_now()
        )
        info = credentials.key_info(issued.credential)
    return Envelope(data=translate.api_key(info, secret=issued.secret))


@api.route("DELETE", "/api/v1/api-keys/<key_id>", answer=Envelope[Message])
def revoke_key(key_id: str) -> Envelope[Message]:
    """Revoke one of the account's API keys, at once."""
    identity = current_identity()
    uid = uid_from_uuid(key_id)
    if uid is None:
        raise NotFound("API key not found")
    with unit_of_work() as session:
        ended = credentials.revoke_api_key(session, identity.account_id, uid, now=utc_now())
    announce_revocation(identity.account_id, [ended])
    return Envelope(data=Message(message="API key revoked"))
