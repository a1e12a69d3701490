"""Accounts in torbiz's words."""

from __future__ import annotations

from app.blueprints.torbiz.account_schemas import Client, SignedIn, User
from app.core.services.profiles import Profile
from app.web.times import iso_seconds


def client_object(profile: Profile, *, user_token: str | None, image_url: str | None) -> Client:
    """The client object; `user_token` is whole, a mask or None, as the caller may see it."""
    return Client(
        user=User(id=profile.id, username=profile.username, email=profile.email),
        phone_no=profile.phone_no,
        user_token=user_token,
        user_image=profile.user_image,
        ip=profile.ip,
        terms_accepted=profile.terms_accepted,
        role=profile.role,
        profile_image_url=image_url,
        is_gpu_provider_approved=profile.is_gpu_provider_approved,
        provider_registration_date=iso_seconds(
            profile.provider_registration_date or profile.created_at
        ),
    )


def signed_in(
    profile: Profile, *, token: str, device_token: str, image_url: str | None
) -> SignedIn:
    """The answer of every way to sign in."""
    return SignedIn(
        token=token,
        user_id=profile.id,
        device_token=device_token,
        username=profile.username,
        email=profile.email,
        role=profile.role,
        profile_image=image_url,
        profile_image_url=image_url,
    )
