"""Accounts: register, find, change, delete."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core.domain.accounts import Role
from app.core.domain.errors import InvalidInput, NotFound, Taken
from app.core.ids import new_secret, new_uid
from app.core.models import Account, AuditEntry, PasswordReset
from app.core.services import credentials, passwords

_EMAIL = re.compile(
    r"^[^@\s\x00-\x1f<>\"',;:\\()\[\]]{1,64}@[^@\s\x00-\x1f<>\"',;:\\()\[\]]+\.[^@\s\x00-\x1f.]{1,63}\Z"
)
_LOCAL_EMAIL = re.compile(r"^[\w.+-]{1,64}@[\w-]+(\.[\w-]+)*$")
_USERNAME = re.compile(r"^[\w.@+ -]{1,150}$")


@dataclass(frozen=True, slots=True)
class NewAccount:
    """What somebody who registers says of himself. No password: it is set by mail."""

    email: str
    password: str | None
    username: str = ""
    name: str = ""
    ip: str | None = None
    terms_accepted: bool | None = None
    phone_no: str | None = None
    user_image: int = 0
    google_sub: str | None = None
    profile_image_url: str | None = None


def normal_email(text: str) -> str:
    """The address in the form that is stored. Raises InvalidInput."""
    email = text.strip().lower()
    if len(email) > 254 or not (_EMAIL.match(email) or _LOCAL_EMAIL.match(email)):
        raise InvalidInput("Enter a valid email address.", field="email")
    return email


def register_account(
    session: Session, new: NewAccount, *, now: datetime, hash_profile: str
) -> Account:
    """Create an account with role `user`. Raises InvalidInput or Taken with the field."""
    email = normal_email(new.email)
    username = new.username.strip()
    if username:
        _check_username(username)
    if new.password is not None:
        passwords.check_length(new.password)
    if _exists(session, Account.email == email):
        raise Taken("An account with this email already exists.", field="email")
    if username and _exists(session, Account.username == username):
        raise Taken("A user with that username already exists.", field="username")
    password_hash = (
        passwords.hash_password(new.password, profile=hash_profile) if new.password else None
    )
    account = Account(
        uid=new_uid(),
        username=username or _free_username(session, email),
        email=email,
        name=new.name.strip(),
        password_hash=password_hash,
        role=Role.USER,
        ip=new.ip,
        terms_accepted=new.terms_accepted,
        phone_no=new.phone_no,
        user_image=new.user_image,
        google_sub=new.google_sub,
        profile_image_url=new.profile_image_url,
        created_at=now,
        updated_at=now,
    )
    session.add(account)
    _flush_or_taken(session)
    return account


def _check_username(username: str) -> None:
    if not _USERNAME.match(username):
        raise InvalidInput(
            "Enter a valid username: letters, digits, spaces and @ . + - _ only, 150 at most.",
            field="username",
        )


def _exists(session: Session, condition: sa.ColumnElement[bool]) -> bool:
    return session.scalar(sa.select(sa.exists().where(condition))) is True


def _free_username(session: Session, email: str) -> str:
    """A name made from the address; a few random letters when it is taken."""
    base = re.sub(r"[^\w.+-]", "", email.split("@")[0])[:100] or "user"
    taken = _exists(session, Account.username == base)
    return f"{base}-{new_secret('', 6).lower()}" if taken else base


def _flush_or_taken(session: Session) -> None:
    """Flush; two people who register the same name at once get the same clear answer."""
    try:
        session.flush()
    except IntegrityError as error:
        field = "username" if "username" in str(error.orig) else "email"
        raise Taken(f"An account with this {field} already exists.", field=field) from None


def get_account(session: Session, account_id: int) -> Account:
    """The account, also a disabled one. Raises NotFound for deleted and unknown ids."""
    account = session.get(Account, account_id) if 0 < account_id < 2**63 else None
    if account is None or account.deleted_at is not None:
        raise NotFound("Not found.")
    return account


def find_by_login(session: Session, login: str) -> Account | None:
    """The account with this e-mail or, failing that, this user name."""
    text = login.strip()
    if "\x00" in text:
        return None
    found = session.scalar(sa.select(Account).where(Account.email == text.lower()))
    return found or session.scalar(sa.select(Account).where(Account.username == text))


def list_accounts(session: Session, *, page: int, page_size: int) -> tuple[list[Account], int]:
    """All accounts that are not deleted, oldest first, and how many there are."""
    alive = Account.deleted_at.is_(None)
    total = session.scalar(sa.select(sa.func.count()).select_from(Account).where(alive)) or 0
    rows = session.scalars(
        sa.select(Account).where(alive).order_by(Account.id)
        .limit(page_size).offset((page - 1) * page_size)
    )  # fmt: skip
    return list(rows), total


def update_account(
    session: Session,
    account: Account,
    *,
    now: datetime,
    username: str | None = None,
    email: str | None = None,
    name: str | None = None,
) -> None:
    """Change the names that are given. Raises InvalidInput or Taken with the field."""
    if username is not None and username.strip() != account.username:
        _check_username(username.strip())
        if _exists(session, Account.username == username.strip()):
            raise Taken("A user with that username already exists.", field="username")
        account.username = username.strip()
    if email is not None and normal_email(email) != account.email:
        if _exists(session, Account.email == normal_email(email)):
            raise Taken("An account with this email already exists.", field="email")
        account.email = normal_email(email)
    if name is not None:
        account.name = name.strip()[:150]
    account.updated_at = now
    _flush_or_taken(session)


def set_password(
    session: Session, account: Account, password: str, *, now: datetime, hash_profile: str
) -> list[int]:
    """Set the password and end tokens, JWTs and sessions, but not API keys.

    Returns the ids of the credentials that ended, for `control` to announce.
    """
    return store_password(
        session, account, passwords.hash_password(password, profile=hash_profile), now=now
    )


def store_password(
    session: Session, account: Account, password_hash: str, *, now: datetime
) -> list[int]:
    """Make this the account's password; sign-ins and mailed links end. The ids that ended."""
    account.password_hash = password_hash
    account.updated_at = now
    session.execute(
        sa.update(PasswordReset)
        .where(PasswordReset.account_id == account.id, PasswordReset.used_at.is_(None))
        .values(used_at=now)
    )
    session.flush()
    return credentials.end_signins(session, account.id, now=now)


def become_provider(
    session: Session, account: Account, *, now: datetime, auto_approve: bool
) -> None:
    """An account's first node makes it a provider; approval is an admin's, or a setting's."""
    if account.role == Role.USER:
        account.role = Role.GPU_PROVIDER
    if account.provider_registration_date is None:
        account.provider_registration_date = now
        account.is_gpu_provider_approved = auto_approve
    session.flush()


def delete_account(session: Session, account: Account, *, now: datetime) -> None:
    """Disable at once and remove what is personal. Runs, points and ledgers stay."""
    account.username = f"deleted-{account.id}"
    account.email = None
    account.name = ""
    account.password_hash = None
    account.phone_no = None
    account.ip = None
    account.google_sub = None
    account.profile_image_url = None
    account.avatar_file = None
    account.user_image = 0
    account.is_active = False
    account.deleted_at = now
    account.updated_at = now
    credentials.end_all(session, account.id, now=now)
    session.flush()


def ensure_admin(
    session: Session, *, email: str, password: str, now: datetime, hash_profile: str
) -> tuple[Account, bool]:
    """The first admin, and whether it was made just now."""
    existing = session.scalar(
        sa.select(Account).where(Account.role == Role.ADMIN).order_by(Account.id).limit(1)
    )
    if existing is not None:
        return existing, False
    account = register_account(
        session,
        NewAccount(email=email, password=password, username="admin", name="Admin"),
        now=now,
        hash_profile=hash_profile,
    )
    account.role = Role.ADMIN
    session.flush()
    return account, True


def note(
    session: Session,
    *,
    actor_id: int | None,
    action: str,
    subject: str,
    detail: str = "",
    now: datetime,
) -> None:
    """Write a line of the trail of administration."""
    session.add(
        AuditEntry(
            at=now, actor_id=actor_id, action=action, subject=subject, detail=detail[:500]
        )
    )
