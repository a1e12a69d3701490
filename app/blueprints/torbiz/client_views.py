"""torbiz's client list: accounts as their owners, and admins, see and change them."""

from __future__ import annotations

from flask import Response, request

from app.blueprints.torbiz import account_translate as translate
from app.blueprints.torbiz.account_schemas import (
    AccountPage,
    Client,
    ClientBody,
    ClientPatch,
    NewClientBody,
)
from app.blueprints.torbiz.api import api
from app.core.clock import utc_now
from app.core.domain.accounts import Identity
from app.core.domain.errors import Forbidden, InvalidInput, NotFound, TooLarge
from app.core.pictures import AVATAR_BYTES, make_avatar
from app.core.services import accounts, profiles
from app.core.services.profiles import Profile
from app.web.auth import current_identity, require_admin
from app.web.files import storage
from app.web.password_mail import request_invitation_mail
from app.web.pictures import picture_url
from app.web.revocation import announce_revocation
from app.web.transaction import reading, unit_of_work
from app.web.validation import json_response

FORM_BYTES = AVATAR_BYTES + 64 * 1024


@api.route("GET", "/client/list/", query=AccountPage, answer=list[Client])
def list_clients(query: AccountPage) -> Response:
    """The caller's own account; for an admin, all accounts, oldest first."""
    session, caller = reading(), current_identity()
    if caller.is_admin:
        rows, total = accounts.list_accounts(
            session, page=query.page, page_size=query.page_size
        )
    else:
        rows, total = [accounts.get_account(session, caller.account_id)], 1
    shown = [_client(profiles.profile_of(row), caller) for row in rows]
    response = json_response([client.model_dump() for client in shown])
    response.headers["X-Total-Count"] = str(total)
    return response


@api.route("POST", "/client/list/", body=NewClientBody, answer=Client, status=201)
def create_client(body: NewClientBody) -> Client:
    """Make an account for somebody, who is sent a mail to choose a password. Admins only."""
    caller = require_admin()
    new = accounts.NewAccount(
        username=body.user.username, email=body.user.email, password=None,
        phone_no=body.phone_no, user_image=body.user_image, terms_accepted=body.terms_accepted,
    )  # fmt: skip
    with unit_of_work() as session:
        account = accounts.register_account(session, new, now=utc_now(), hash_profile="default")
        _note(caller, "account.create", account.id)
        profile = profiles.profile_of(account)
    request_invitation_mail(profile.id)
    return _client(profile, caller)


@api.route("GET", "/client/list/<int:client_id>/", answer=Client)
def show_client(client_id: int) -> Client:
    """One account: the caller's own, or any for an admin."""
    caller = _allowed(client_id)
    account = accounts.get_account(reading(), client_id)
    return _client(profiles.profile_of(account), caller)


@api.route(
    "PUT", "/client/list/<int:client_id>/", body=ClientBody, answer=Client,
    form_bytes=FORM_BYTES, files=("profile_image",),
)  # fmt: skip
def replace_client(client_id: int, body: ClientBody) -> Client:
    """Set everything that is writable; what is left out gets its default."""
    return _change(client_id, body, body.changes())


@api.route(
    "PATCH", "/client/list/<int:client_id>/", body=ClientPatch, answer=Client,
    form_bytes=FORM_BYTES, files=("profile_image",),
)  # fmt: skip
def change_client(client_id: int, body: ClientPatch) -> Client:
    """Change what is sent."""
    return _change(client_id, body, body.changes())


@api.route("DELETE", "/client/list/<int:client_id>/", status=204)
def delete_client(client_id: int) -> None:
    """Disable an account at once and remove what is personal. Its ledgers stay."""
    caller = _allowed(client_id)
    with unit_of_work() as session:
        account = accounts.get_account(session, client_id)
        files = profiles.remove_account(session, account, now=utc_now())
        _note(caller, "account.delete", client_id)
    announce_revocation(client_id, None)
    for file in files:
        storage().delete(file)


def _change(
    client_id: int, body: ClientPatch | ClientBody, changes: profiles.ProfileChanges
) -> Client:
    caller = _allowed(client_id)
    if body.user is not None and body.user.id not in (None, client_id):
        raise Forbidden("The id of an account cannot be changed.")
    avatar = _sent_avatar()
    # Written before the transaction begins: nothing waits for a disk while rows are locked.
    file = storage().put_bytes("avatars", avatar, suffix=".webp").name if avatar else None
    replaced = None
    try:
        with unit_of_work() as session:
            account = accounts.get_account(session, client_id)
            profiles.change_profile(session, account, changes, now=utc_now())
            if file:
                replaced = profiles.change_picture(session, account, file, now=utc_now())
            if caller.account_id != client_id:
                _note(caller, "account.change", client_id)
            profile = profiles.profile_of(account)
    except BaseException:
        if file:
            storage().delete(file)
        raise
    if replaced:
        storage().delete(replaced)
    return _client(profile, caller)


def _sent_avatar() -> bytes | None:
    sent = request.files.get("profile_image")
    if sent is None or not sent.filename:
        return None
    data = sent.stream.read(AVATAR_BYTES + 1)
    if len(data) > AVATAR_BYTES:
        raise TooLarge(f"A picture may have {AVATAR_BYTES // 2**20} MB at most.")
    if not data:
        raise InvalidInput("The submitted file is empty.", field="profile_image")
    return make_avatar(data)


def _allowed(client_id: int) -> Identity:
    """The caller, if this account is theirs to see. Raises NotFound."""
    caller = current_identity()
    if not caller.may_act_for(client_id):
        raise NotFound("Not found.")
    return caller


def _note(caller: Identity, action: str, client_id: int) -> None:
    accounts.note(
        reading(), actor_id=caller.account_id, action=action,
        subject=f"account:{client_id}", now=utc_now(),
    )  # fmt: skip


def _client(profile: Profile, caller: Identity) -> Client:
    """The client object; its owner alone sees the mask of the token."""
    mask = None
    if caller.account_id == profile.id:
        mask = profiles.token_mask(reading(), profile.id, caller.credential_id)
    return translate.client_object(profile, user_token=mask, image_url=picture_url(profile))
