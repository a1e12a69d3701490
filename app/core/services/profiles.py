"""What the doors show of an account."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.accounts import CredentialKind
from app.core.models import Account, Credential


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
