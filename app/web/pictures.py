"""Links to profile pictures."""

from __future__ import annotations

from app.core.services.profiles import Profile
from app.web.files import lasting_file_url


def picture_url(profile: Profile) -> str | None:
    """Where an `<img>` finds this account's picture without a header; None without one."""
    if profile.avatar_file:
        return lasting_file_url(profile.avatar_file)
    return profile.picture_url
