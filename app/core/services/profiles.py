"""Accounts as their owners see and change them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.accounts import CredentialKind, Role
from app.core.domain.errors import Conflict
from app.core.models import Account, Credential, HardwareRecord, Node
from app.core.services import accounts, datasets, nodes


@dataclass(frozen=True, slots=True)
class Profile:
    """An account without anything that opens it.

    `avatar_file` is a name in storage; `picture_url` a link that somebody else hosts.
    """

    id: int
    uid: str
    username: str
    email: str
    name: str
    role: str
    is_active: bool
    phone_no: str | None
    user_image: int
    avatar_file: str | None
    picture_url: str | None
    ip: str | None
    terms_accepted: bool | None
    is_gpu_provider_approved: bool
    provider_registration_date: datetime | None
    created_at: datetime


def profile_of(account: Account) -> Profile:
    """The account as the doors may show it to its owner."""
    return Profile(
        id=account.id,
        uid=account.uid,
        username=account.username,
        email=account.email or "",
        name=account.name,
        role=account.role,
        is_active=account.is_active,
        phone_no=account.phone_no,
        user_image=account.user_image,
        avatar_file=account.avatar_file,
        picture_url=account.profile_image_url,
        ip=account.ip,
        terms_accepted=account.terms_accepted,
        is_gpu_provider_approved=account.is_gpu_provider_approved,
        provider_registration_date=account.provider_registration_date,
        created_at=account.created_at,
    )


def token_mask(session: Session, account_id: int, credential_id: int | None) -> str | None:
    """The mask of the token that calls, else of the newest one; None without any."""
    live = sa.select(Credential.mask).where(
        Credential.account_id == account_id,
        Credential.kind == CredentialKind.TOKEN,
        Credential.revoked_at.is_(None),
    )
    if credential_id is not None:
        own = session.scalar(live.where(Credential.id == credential_id))
        if own is not None:
            return own
    return session.scalar(live.order_by(Credential.id.desc()).limit(1))


class ProfileChanges(TypedDict, total=False):
    """What an account may change of itself; what is absent stays."""

    username: str
    email: str
    name: str
    phone_no: str | None
    user_image: int
    terms_accepted: bool | None


def change_profile(
    session: Session, account: Account, changes: ProfileChanges, *, now: datetime
) -> None:
    """Change what is given. Raises InvalidInput or Taken with the field."""
    accounts.update_account(
        session, account, now=now,
        username=changes.get("username"), email=changes.get("email"), name=changes.get("name"),
    )  # fmt: skip
    if "phone_no" in changes:
        account.phone_no = changes["phone_no"]
    if "user_image" in changes:
        account.user_image = changes["user_image"]
    if "terms_accepted" in changes:
        account.terms_accepted = changes["terms_accepted"]
    session.flush()


def change_picture(
    session: Session, account: Account, file: str, *, now: datetime
) -> str | None:
    """Make this stored file the account's picture; the file that it replaces."""
    replaced = account.avatar_file
    account.avatar_file = file
    account.updated_at = now
    session.flush()
    return replaced


def remove_account(session: Session, account: Account, *, now: datetime) -> list[str]:
    """Delete an account with its nodes and datasets; the files, for the caller to delete.

    Raises Conflict for the last admin: nobody could run the hub then.
    """
    if account.role == Role.ADMIN and _is_last_admin(session, account):
        raise Conflict("This is the last admin. Make another account an admin first.")
    files = [account.avatar_file] if account.avatar_file else []
    files += datasets.remove_all(session, account.id, now=now)
    for record in session.scalars(
        sa.select(HardwareRecord).where(HardwareRecord.account_id == account.id)
    ):
        session.delete(record)
    for node in session.scalars(
        sa.select(Node).where(Node.account_id == account.id, Node.removed_at.is_(None))
    ):
        nodes.remove_node(session, node, now=now)
    accounts.delete_account(session, account, now=now)
    return files


def _is_last_admin(session: Session, account: Account) -> bool:
    others = sa.select(sa.func.count()).where(
        Account.role == Role.ADMIN, Account.is_active.is_(True), Account.id != account.id
    )
    return session.scalar(others) == 0
