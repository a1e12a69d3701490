"""Links to profile pictures."""

from __future__ import annotations

from app.core.services.profiles import Profile


def picture_url(profile: Profile) -> str | None:
    """Where an `<img>` finds this account's picture; None without one."""
    return profile.picture_url
