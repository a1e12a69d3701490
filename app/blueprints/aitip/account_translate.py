"""Accounts and keys in aitip's words."""

from __future__ import annotations

from app.blueprints.aitip.account_schemas import ApiKey, SignedIn, User
from app.core.ids import uid_as_uuid
from app.core.services.credentials import KeyInfo, TokenPair
from app.core.services.profiles import Profile
from app.web.times import iso_seconds


def user_object(profile: Profile) -> User:
    """An account."""
    return User(
        id=uid_as_uuid(profile.uid),
        email=profile.email,
        username=profile.username,
        role=profile.role,
        created_at=iso_seconds(profile.created_at),
    )


def signed_in(profile: Profile, pair: TokenPair) -> SignedIn:
    """An account and its fresh tokens."""
    return SignedIn(
        user=user_object(profile),
        token=pair.access_token,
        access_token=pair.access_token,
        refresh_token=pair.refresh_token,
        expires_at=iso_seconds(pair.expires_at),
    )


def api_key(info: KeyInfo, *, secret: str | None = None) -> ApiKey:
    """A key: whole with its `secret`, which only the answer that makes it has."""
    return ApiKey(
        id=uid_as_uuid(info.uid),
        name=info.name,
        key=secret or info.mask,
        created_at=iso_seconds(info.created_at),
        last_used_at=iso_seconds(info.last_used_at) if info.last_used_at else None,
        expires_at=iso_seconds(info.expires_at) if info.expires_at else None,
    )
