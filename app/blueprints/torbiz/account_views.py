"""torbiz: register, sign in and out."""

from __future__ import annotations

from app.blueprints.torbiz import account_translate as translate
from app.blueprints.torbiz.account_schemas import (
    Client,
    Detail,
    GoogleBody,
    LoginBody,
    LogoutBody,
    NewPasswordBody,
    PasswordResetBody,
    RegisterBody,
    SignedIn,
)
from app.blueprints.torbiz.api import api
from app.core.clock import utc_now
from app.core.domain.accounts import CredentialKind
from app.core.domain.errors import InvalidInput
from app.core.services import accounts, credentials, password_reset, profiles
from app.web import doors
from app.web.auth import current_identity
from app.web.context import remote_address, settings
from app.web.password_mail import request_reset_mail
from app.web.pictures import picture_url
from app.web.revocation import announce_revocation
from app.web.transaction import unit_of_work


@api.route(
    "POST", "/client/register/", body=RegisterBody, answer=Client, status=201, is_open=True
)
def register(body: RegisterBody) -> Client:
    """Register a new account and get its token."""
    if not body.passwords_agree():
        raise InvalidInput("The two passwords do not match.", field="confirm_password")
    new = accounts.NewAccount(
        username=body.username,
        email=body.email,
        password=body.password,
        terms_accepted=body.terms_accepted,
        ip=remote_address(),
    )
    with unit_of_work() as session:
        account = doors.sign_up(session, new)
        issued, _ = credentials.issue_token(session, account.id, now=utc_now())
        profile = profiles.profile_of(account)
    return translate.client_object(
        profile, user_token=issued.secret, image_url=picture_url(profile)
    )


@api.route("POST", "/client/login/", body=LoginBody, answer=SignedIn, status=201, is_open=True)
def login(body: LoginBody) -> SignedIn:
    """Sign in with an e-mail or a user name, and a password."""
    with unit_of_work() as session:
        account = doors.sign_in(session, body.login, body.password)
        issued, device_token = credentials.issue_token(session, account.id, now=utc_now())
        profile = profiles.profile_of(account)
    return translate.signed_in(
        profile, token=issued.secret, device_token=device_token, image_url=picture_url(profile)
    )


@api.route(
    "POST", "/client/google-auth/", body=GoogleBody, answer=SignedIn, status=201, is_open=True
)
def sign_in_with_google(body: GoogleBody) -> SignedIn:
    """Sign in with a Google ID token; a new account is made when nobody has its address."""
    with unit_of_work() as session:
        account = doors.sign_in_with_google(session, body.token)
        issued, device_token = credentials.issue_token(session, account.id, now=utc_now())
        profile = profiles.profile_of(account)
    return translate.signed_in(
        profile, token=issued.secret, device_token=device_token, image_url=picture_url(profile)
    )


@api.route("POST", "/client/logout/", body=LogoutBody, answer=Detail, status=201)
def logout(body: LogoutBody) -> Detail:
    """End the token that calls, and those of the device that is named."""
    identity = current_identity()
    ended: list[int] = []
    with unit_of_work() as session:
        if body.device_token:
            ended += credentials.end_device(
                session, identity.account_id, body.device_token, now=utc_now()
            )
        if identity.credential_id and identity.credential_kind is not CredentialKind.API_KEY:
            credentials.end_credential(session, identity.credential_id, now=utc_now())
            ended.append(identity.credential_id)
    announce_revocation(identity.account_id, ended)
    return Detail(detail="Signed out.")


@api.route(
    "POST", "/client/password-reset/",
    body=PasswordResetBody, answer=Detail, status=201, is_open=True,
)  # fmt: skip
def ask_for_reset(body: PasswordResetBody) -> Detail:
    """Have a link to set a new password mailed. The answer is the same for any address."""
    request_reset_mail(body.email)
    return Detail(detail="If that address has an account, a mail is on its way.")


@api.route(
    "POST", "/client/reset-password/<uidb64>/<token>/",
    body=NewPasswordBody, answer=Detail, status=201, is_open=True,
)  # fmt: skip
def reset_password(uidb64: str, token: str, body: NewPasswordBody) -> Detail:
    """Set a new password with a mailed link, once. Everybody who is signed in is signed out."""
    password = body.chosen or ""
    if body.confirm_password is not None and body.confirm_password != password:
        raise InvalidInput("The two passwords do not match.", field="confirm_password")
    with unit_of_work() as session:
        done = password_reset.complete_reset(
            session, uidb64, token, password,
            now=utc_now(), hash_profile=settings().argon2_profile,
        )  # fmt: skip
    announce_revocation(done.account_id, [*done.ended, None])
    return Detail(detail="The new password is set. Sign in with it.")
