"""Tokens, API keys and sessions: issue, recognise, end. Of a secret only its hash is kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import jwt
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.accounts import CredentialKind, Identity, Role
from app.core.domain.errors import Conflict, InvalidInput, NotFound, Unauthenticated
from app.core.ids import hash_secret, mask_secret, new_secret, new_uid
from app.core.models import Account, Credential

REFRESH_DAYS = 7
SESSION_DAYS = 30
MAX_API_KEYS = 10
_PREFIX_OF_KIND = {CredentialKind.API_KEY: "sk-", CredentialKind.TOKEN: "wt_"}


@dataclass(frozen=True, slots=True)
class Issued:
    """A fresh credential and its secret, which exists in clear here and nowhere else."""

    credential: Credential
    secret: str


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What its owner may see of an API key."""

    uid: str
    name: str
    mask: str
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    model_name: str | None
    model_uid: str | None


def key_info(credential: Credential) -> KeyInfo:
    """The key without its secret."""
    return KeyInfo(
        uid=credential.uid,
        name=credential.name,
        mask=credential.mask,
        created_at=credential.created_at,
        last_used_at=credential.last_used_at,
        expires_at=credential.expires_at,
        model_name=credential.model_name,
        model_uid=credential.model_uid,
    )


def _issue(
    session: Session,
    account_id: int,
    kind: CredentialKind,
    *,
    now: datetime,
    name: str = "",
    expires_at: datetime | None = None,
    device_token: str | None = None,
    model_name: str | None = None,
    model_uid: str | None = None,
) -> Issued:
    secret = new_secret(_PREFIX_OF_KIND.get(kind, "ws_"))
    credential = Credential(
        uid=new_uid(),
        account_id=account_id,
        kind=kind,
        name=name,
        secret_hash=hash_secret(secret),
        mask=mask_secret(secret),
        device_hash=hash_secret(device_token) if device_token else None,
        model_name=model_name,
        model_uid=model_uid,
        created_at=now,
        expires_at=expires_at,
    )
    session.add(credential)
    session.flush()
    return Issued(credential, secret)


def issue_token(session: Session, account_id: int, *, now: datetime) -> tuple[Issued, str]:
    """A torbiz token and the device token that ends it."""
    device_token = new_secret("wd_", 32)
    issued = _issue(
        session, account_id, CredentialKind.TOKEN, now=now, device_token=device_token
    )
    return issued, device_token


def issue_api_key(
    session: Session,
    account_id: int,
    *,
    name: str,
    now: datetime,
    model_name: str | None = None,
    model_uid: str | None = None,
    limit: int | None = MAX_API_KEYS,
) -> Issued:
    """An `sk-` key. Raises InvalidInput for its name, Conflict when the account has enough."""
    name = name.strip()
    if not 1 <= len(name) <= 255:
        raise InvalidInput("Give the key a name of 1 to 255 characters.", field="name")
    if limit is not None and len(list_api_keys(session, account_id)) >= limit:
        raise Conflict(f"An account has at most {limit} API keys. Revoke one first.")
    return _issue(
        session, account_id, CredentialKind.API_KEY, now=now, name=name,
        model_name=model_name, model_uid=model_uid,
    )  # fmt: skip


def issue_session(
    session: Session, account_id: int, *, now: datetime, name: str = ""
) -> Issued:
    """A dashboard session; its secret goes into the cookie."""
    return _issue(
        session, account_id, CredentialKind.SESSION, now=now, name=name[:255],
        expires_at=now + timedelta(days=SESSION_DAYS),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TokenPair:
    """Access and refresh JWTs of one sign-in."""

    access_token: str
    refresh_token: str
    expires_at: datetime


def issue_jwt(
    session: Session, account: Account, *, secret_key: str, lifetime: timedelta, now: datetime
) -> TokenPair:
    """JWTs (HS256) that name a row of ours, so that they can be ended before they expire."""
    expires_at = now + timedelta(days=REFRESH_DAYS)
    family = _issue(session, account.id, CredentialKind.JWT, now=now, expires_at=expires_at)
    return _sign_pair(account, family.credential, secret_key, lifetime, now)


def _sign_pair(
    account: Account, family: Credential, secret_key: str, lifetime: timedelta, now: datetime
) -> TokenPair:
    def sign(use: str, until: datetime) -> str:
        claims = {
            "sub": account.uid, "sid": family.uid, "use": use, "jti": new_uid(),
            "user_id": account.uid, "email": account.email, "name": account.username,
            "role": account.role, "iat": now, "exp": until,
        }  # fmt: skip
        return jwt.encode(claims, secret_key, algorithm="HS256")

    access_until = now + lifetime
    refresh_until = now + timedelta(days=REFRESH_DAYS)
    return TokenPair(sign("access", access_until), sign("refresh", refresh_until), access_until)


def refresh_jwt(
    session: Session, refresh_token: str, *, secret_key: str, lifetime: timedelta, now: datetime
) -> tuple[Account, TokenPair]:
    """A new pair for a valid refresh token. Raises Unauthenticated."""
    found = _find_family(session, refresh_token, "refresh", secret_key=secret_key, now=now)
    if found is None or not found[1].is_active:
        raise Unauthenticated("Invalid or expired refresh token.")
    family, account = found
    family.expires_at = now + timedelta(days=REFRESH_DAYS)
    session.flush()
    return account, _sign_pair(account, family, secret_key, lifetime, now)


def _find_family(
    session: Session, token: str, use: str, *, secret_key: str, now: datetime
) -> tuple[Credential, Account] | None:
    """The sign-in that this JWT names, and its account."""
    try:
        claims = jwt.decode(
            token, secret_key, algorithms=["HS256"], options={"require": ["exp", "sub", "sid"]}
        )
    except jwt.InvalidTokenError:
        return None
    if claims.get("use") != use or not isinstance(claims.get("sid"), str):
        return None
    row = session.execute(
        sa.select(Credential, Account)
        .join(Account, Account.id == Credential.account_id)
        .where(
            Credential.uid == claims["sid"],
            Credential.kind == CredentialKind.JWT,
            Account.uid == claims["sub"],
        )
    ).first()
    return (row[0], row[1]) if row is not None and _is_live(row[0], now) else None


def _is_live(credential: Credential, now: datetime) -> bool:
    return credential.revoked_at is None and (
        credential.expires_at is None or credential.expires_at > now
    )


def identify_secret(
    session: Session, secret: str, *, kinds: frozenset[CredentialKind], now: datetime
) -> Identity | None:
    """Who holds this token, key or session; None when nobody does any more."""
    row = session.execute(
        sa.select(Credential, Account)
        .join(Account, Account.id == Credential.account_id)
        .where(Credential.secret_hash == hash_secret(secret))
    ).first()
    if row is None or row[0].kind not in kinds or not _is_live(row[0], now):
        return None
    return identity_of(row[1], row[0])


def identify_jwt(
    session: Session, token: str, *, secret_key: str, now: datetime
) -> Identity | None:
    """Who holds this access token; None when it is invalid, expired or ended."""
    found = _find_family(session, token, "access", secret_key=secret_key, now=now)
    return identity_of(found[1], found[0]) if found is not None else None


def identity_of(account: Account, credential: Credential | None) -> Identity | None:
    """The identity of an active account; None for a disabled one."""
    if not account.is_active:
        return None
    return Identity(
        account_id=account.id,
        account_uid=account.uid,
        username=account.username,
        email=account.email or "",
        role=Role(account.role),
        credential_id=credential.id if credential else None,
        credential_uid=credential.uid if credential else None,
        credential_kind=CredentialKind(credential.kind) if credential else None,
        model_name=credential.model_name if credential else None,
    )


def list_api_keys(session: Session, account_id: int) -> list[Credential]:
    """The account's keys that open something, newest first."""
    return list(
        session.scalars(
            sa.select(Credential)
            .where(
                Credential.account_id == account_id,
                Credential.kind == CredentialKind.API_KEY,
                Credential.revoked_at.is_(None),
            )
            .order_by(Credential.id.desc())
        )
    )


def revoke_api_key(session: Session, account_id: int, uid: str, *, now: datetime) -> int:
    """End one of the account's own keys and return its row id. Raises NotFound."""
    found = session.scalar(
        sa.select(Credential.id).where(
            Credential.uid == uid,
            Credential.account_id == account_id,
            Credential.kind == CredentialKind.API_KEY,
            Credential.revoked_at.is_(None),
        )
    )
    if found is None:
        raise NotFound("API key not found")
    end_credential(session, found, now=now)
    return found


def list_signins(
    session: Session, account_id: int, *, now: datetime, limit: int = 50
) -> list[Credential]:
    """Browsers and apps that are signed in, newest first."""
    return list(
        session.scalars(
            sa.select(Credential)
            .where(
                Credential.account_id == account_id,
                Credential.kind != CredentialKind.API_KEY,
                Credential.revoked_at.is_(None),
                sa.or_(Credential.expires_at.is_(None), Credential.expires_at > now),
            )
            .order_by(Credential.id.desc())
            .limit(limit)
        )
    )


def end_signin(session: Session, account_id: int, uid: str, *, now: datetime) -> int:
    """End one of the account's own sign-ins and return its row id. Raises NotFound."""
    found = session.scalar(
        sa.select(Credential.id).where(
            Credential.uid == uid,
            Credential.account_id == account_id,
            Credential.kind != CredentialKind.API_KEY,
            Credential.revoked_at.is_(None),
        )
    )
    if found is None:
        raise NotFound("Session not found")
    end_credential(session, found, now=now)
    return found


def touch(session: Session, credential_id: int, *, now: datetime) -> None:
    """Note that a credential was used."""
    session.execute(
        sa.update(Credential).where(Credential.id == credential_id).values(last_used_at=now)
    )


def end_credential(session: Session, credential_id: int, *, now: datetime) -> None:
    """End one credential."""
    session.execute(
        sa.update(Credential).where(Credential.id == credential_id).values(revoked_at=now)
    )


def end_device(
    session: Session, account_id: int, device_token: str, *, now: datetime
) -> list[int]:
    """End the account's tokens of one device; the ids that ended."""
    return _end(
        session, account_id, Credential.device_hash == hash_secret(device_token), now=now
    )


def end_signins(session: Session, account_id: int, *, now: datetime) -> list[int]:
    """End tokens, JWTs and sessions, not API keys; the ids that ended."""
    return _end(session, account_id, Credential.kind != CredentialKind.API_KEY, now=now)


def end_all(session: Session, account_id: int, *, now: datetime) -> list[int]:
    """End everything that opens this account; the ids that ended."""
    return _end(session, account_id, sa.true(), now=now)


def _end(
    session: Session, account_id: int, which: sa.ColumnElement[bool], *, now: datetime
) -> list[int]:
    live = sa.and_(Credential.account_id == account_id, Credential.revoked_at.is_(None), which)
    ids = list(session.scalars(sa.select(Credential.id).where(live)))
    if ids:
        session.execute(
            sa.update(Credential).where(Credential.id.in_(ids)).values(revoked_at=now)
        )
    return ids
