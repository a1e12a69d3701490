"""Accounts, what they sign in with, and the trail of what they did."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.core.models.base import Base


class Account(Base):
    """One person or app. Every door signs in to the same row."""

    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[str] = mapped_column(sa.String(24), unique=True)
    username: Mapped[str] = mapped_column(sa.String(150), unique=True)
    # Lower case; NULL once the account is deleted, so that the address is free again.
    email: Mapped[str | None] = mapped_column(sa.String(254), unique=True)
    name: Mapped[str] = mapped_column(sa.String(150), default="")
    password_hash: Mapped[str | None] = mapped_column(sa.String(200))
    role: Mapped[str] = mapped_column(sa.String(16), default="user")
    is_active: Mapped[bool] = mapped_column(default=True)
    phone_no: Mapped[str | None] = mapped_column(sa.String(12))
    user_image: Mapped[int] = mapped_column(sa.SmallInteger, default=0)
    avatar_file: Mapped[str | None] = mapped_column(sa.String(200))
    profile_image_url: Mapped[str | None] = mapped_column(sa.String(500))
    ip: Mapped[str | None] = mapped_column(sa.String(45))
    terms_accepted: Mapped[bool | None]
    is_gpu_provider_approved: Mapped[bool] = mapped_column(default=False)
    provider_registration_date: Mapped[datetime | None]
    google_sub: Mapped[str | None] = mapped_column(sa.String(64), unique=True)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class Credential(Base):
    """A token, an API key or a session. Of the secret only its hash is kept.

    kind: `token` (torbiz), `api_key`, `jwt` (a refresh family; access tokens name it),
    `session` (dashboard).
    """

    __tablename__ = "credentials"

    id: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[str] = mapped_column(sa.String(24), unique=True)
    account_id: Mapped[int] = mapped_column(sa.ForeignKey("accounts.id"), index=True)
    kind: Mapped[str] = mapped_column(sa.String(16))
    name: Mapped[str] = mapped_column(sa.String(255), default="")
    secret_hash: Mapped[str] = mapped_column(sa.String(64), unique=True)
    mask: Mapped[str] = mapped_column(sa.String(20))
    device_hash: Mapped[str | None] = mapped_column(sa.String(64), index=True)
    # An API key may open one model alone.
    model_name: Mapped[str | None] = mapped_column(sa.String(200))
    model_uid: Mapped[str | None] = mapped_column(sa.String(24))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class EnrolmentToken(Base):
    """Lets one machine join as a node of an account."""

    __tablename__ = "enrolment_tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(sa.ForeignKey("accounts.id"), index=True)
    secret_hash: Mapped[str] = mapped_column(sa.String(64), unique=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    uses_left: Mapped[int]
    node_id: Mapped[int | None]


class PasswordReset(Base):
    """A mailed, single-use right to set a new password."""

    __tablename__ = "password_resets"

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(sa.ForeignKey("accounts.id"), index=True)
    secret_hash: Mapped[str] = mapped_column(sa.String(64), unique=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class AuditEntry(Base):
    """Who did what to whom: an append-only trail of administration."""

    __tablename__ = "audit_entries"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    actor_id: Mapped[int | None] = mapped_column(sa.ForeignKey("accounts.id"))
    action: Mapped[str] = mapped_column(sa.String(64))
    subject: Mapped[str] = mapped_column(sa.String(100))
    detail: Mapped[str] = mapped_column(sa.String(500), default="")
