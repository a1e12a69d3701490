"""Setting a password by mail: asked for, or invited by an admin. Tokens work once."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.errors import InvalidInput
from app.core.ids import hash_secret, new_secret
from app.core.mail import Mail
from app.core.models import Account, PasswordReset
from app.core.services import accounts, passwords

RESET_LIFETIME = timedelta(hours=1)
INVITATION_LIFETIME = timedelta(days=3)
# Mails an hour to one address: enough for a person, too few to fill a mailbox.
MAILS_PER_HOUR = 5

_RESET_TEXT = """Hello {username},

somebody, hopefully you, asked for a new password for your Weft account.
Choose one here within the next hour; the link works once:

{link}

If it was not you, ignore this mail: your password stays as it is.
"""
_INVITATION_TEXT = """Hello {username},

an account was made for you on Weft, with this e-mail address.
Choose a password here within the next three days; the link works once:

{link}
"""
_LINK_TEXT = """Hello {username},

your Weft account has been opened with the Google account of this e-mail address.
From now on both open it: Google, and the password it had before.

If you did not set that password yourself, choose a new one here within the next three days.
That signs everybody out who uses the old one; the link works once:

{link}

API keys stay as they are: look through them on the page "API keys".
"""


@dataclass(frozen=True, slots=True)
class PasswordSet:
    """Whose password was set, and which credentials ended with the old one."""

    account_id: int
    ended: list[int]


def request_reset(session: Session, email: str, *, now: datetime, site_url: str) -> Mail | None:
    """The mail for whoever has this address; None when nobody does, or asks too often."""
    account = session.scalar(sa.select(Account).where(Account.email == email.strip().lower()))
    if account is None or not account.is_active or _asked_too_often(session, account, now):
        return None
    link = _make_link(session, account, now=now, lifetime=RESET_LIFETIME, site_url=site_url)
    text = _RESET_TEXT.format(username=account.username, link=link)
    return Mail(account.email or "", "Choose a new password for Weft", text)


def invite(session: Session, account_id: int, *, now: datetime, site_url: str) -> Mail | None:
    """The mail with which a fresh account chooses its first password; None when it has one."""
    account = session.get(Account, account_id)
    if account is None or not account.is_active or account.password_hash is not None:
        return None
    link = _make_link(
        session, account, now=now, lifetime=INVITATION_LIFETIME, site_url=site_url
    )
    text = _INVITATION_TEXT.format(username=account.username, link=link)
    return Mail(account.email or "", "Your account on Weft", text)


def tell_of_link(
    session: Session, account_id: int, *, now: datetime, site_url: str
) -> Mail | None:
    """The mail after a Google account was linked to an account that has a password.

    None when it has none: then nobody else can sign in.
    """
    account = session.get(Account, account_id)
    if account is None or not account.is_active or account.password_hash is None:
        return None
    link = _make_link(
        session, account, now=now, lifetime=INVITATION_LIFETIME, site_url=site_url
    )
    text = _LINK_TEXT.format(username=account.username, link=link)
    return Mail(account.email or "", "Google now opens your Weft account", text)


def is_usable(session: Session, uidb64: str, token: str, *, now: datetime) -> bool:
    """Whether this link still sets a password."""
    return _find(session, uidb64, token, now) is not None


def complete_reset(
    session: Session,
    uidb64: str,
    token: str,
    password: str,
    *,
    now: datetime,
    hash_profile: str,
) -> PasswordSet:
    """Set the password by a mailed link. All links of the account and its sign-ins end.

    Raises InvalidInput for a link that is wrong, used or too old, and for the password.
    """
    reset = _find(session, uidb64, token, now)
    account = session.get(Account, reset.account_id) if reset is not None else None
    if reset is None or account is None or not account.is_active:
        raise InvalidInput("This link is not valid any more. Ask for a new one.")
    # Hashing yields to others, and nothing may be locked meanwhile; whoever comes second
    # with the same link finds it used.
    password_hash = passwords.hash_password(password, profile=hash_profile)
    claimed = session.scalars(
        sa.update(PasswordReset)
        .where(PasswordReset.id == reset.id, PasswordReset.used_at.is_(None))
        .values(used_at=now)
        .returning(PasswordReset.id)
    ).all()
    if not claimed:
        raise InvalidInput("This link is not valid any more. Ask for a new one.")
    ended = accounts.store_password(session, account, password_hash, now=now)
    return PasswordSet(account.id, ended)


def _make_link(
    session: Session, account: Account, *, now: datetime, lifetime: timedelta, site_url: str
) -> str:
    token = new_secret("", 43)
    session.add(
        PasswordReset(
            account_id=account.id,
            secret_hash=hash_secret(token),
            created_at=now,
            expires_at=now + lifetime,
        )
    )
    session.flush()
    uidb64 = base64.urlsafe_b64encode(str(account.id).encode()).decode().rstrip("=")
    return f"{site_url}/reset-password/{uidb64}/{token}"


def _asked_too_often(session: Session, account: Account, now: datetime) -> bool:
    recent = sa.select(sa.func.count()).where(
        PasswordReset.account_id == account.id,
        PasswordReset.created_at > now - timedelta(hours=1),
    )
    return (session.scalar(recent) or 0) >= MAILS_PER_HOUR


def _find(session: Session, uidb64: str, token: str, now: datetime) -> PasswordReset | None:
    found = session.scalar(
        sa.select(PasswordReset).where(PasswordReset.secret_hash == hash_secret(token))
    )
    if found is None or found.used_at is not None or found.expires_at <= now:
        return None
    return found if str(found.account_id) == _decode_uid(uidb64) else None


def _decode_uid(uidb64: str) -> str | None:
    try:
        padded = uidb64 + "=" * (-len(uidb64) % 4)
        return base64.urlsafe_b64decode(padded.encode("ascii")).decode("ascii")
    except (UnicodeError, binascii.Error, ValueError):
        return None
