"""What an admin looks through: accounts, providers that wait, devices' types, the trail."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.errors import InvalidInput
from app.core.models import Account, AuditEntry, DeviceType, Node
from app.core.services import accounts
from app.core.services.device_types import KnownType, set_type, shipped_types

PAGE_SIZE = 25
_MAX_PCI = 0xFFFF
_MAX_TFLOPS = 100_000


@dataclass(frozen=True, slots=True)
class AccountLine:
    """An account in the list."""

    id: int
    username: str
    email: str | None
    role: str
    is_active: bool
    is_provider: bool
    is_approved: bool
    nodes: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class AuditLine:
    """A line of the trail; `actor` is a name, empty for the hub itself."""

    at: datetime
    actor: str
    action: str
    subject: str
    detail: str


def list_accounts(
    session: Session, *, search: str = "", only_waiting: bool = False, page: int = 1,
    page_size: int = PAGE_SIZE,
) -> tuple[list[AccountLine], int]:  # fmt: skip
    """Accounts, the newest first, and how many match. `search` looks in names and addresses."""
    conditions: list[sa.ColumnElement[bool]] = [Account.deleted_at.is_(None)]
    if search:
        text = search.lower()
        conditions.append(
            sa.or_(
                sa.func.lower(Account.username).contains(text, autoescape=True),
                Account.email.contains(text, autoescape=True),
                sa.func.lower(Account.name).contains(text, autoescape=True),
            )
        )
    if only_waiting:
        conditions += [
            Account.provider_registration_date.is_not(None),
            Account.is_gpu_provider_approved.is_(False),
        ]
    total = session.scalar(sa.select(sa.func.count()).select_from(Account).where(*conditions))
    rows = session.scalars(
        sa.select(Account)
        .where(*conditions)
        .order_by(Account.id.desc())
        .limit(page_size)
        .offset((page - 1) * page_size)
    ).all()
    counts = _node_counts(session, [row.id for row in rows])
    lines = [
        AccountLine(
            row.id, row.username, row.email, row.role, row.is_active,
            row.provider_registration_date is not None, row.is_gpu_provider_approved,
            counts.get(row.id, 0), row.created_at,
        )
        for row in rows
    ]  # fmt: skip
    return lines, total or 0


def _node_counts(session: Session, account_ids: list[int]) -> dict[int, int]:
    rows = session.execute(
        sa.select(Node.account_id, sa.func.count())
        .where(Node.account_id.in_(account_ids), Node.removed_at.is_(None))
        .group_by(Node.account_id)
    )
    return {row[0]: row[1] for row in rows}


def list_trail(
    session: Session, *, page: int = 1, page_size: int = PAGE_SIZE
) -> tuple[list[AuditLine], int]:
    """The trail of administration, newest first, and how long it is."""
    total = session.scalar(sa.select(sa.func.count()).select_from(AuditEntry))
    rows = session.execute(
        sa.select(
            AuditEntry.at, sa.func.coalesce(Account.username, ""), AuditEntry.action,
            AuditEntry.subject, AuditEntry.detail,
        )
        .outerjoin(Account, Account.id == AuditEntry.actor_id)
        .order_by(AuditEntry.id.desc())
        .limit(page_size)
        .offset((page - 1) * page_size)
    )  # fmt: skip
    return [AuditLine(*row) for row in rows], total or 0


def list_types(
    session: Session, *, search: str = ""
) -> tuple[list[KnownType], list[KnownType]]:
    """Kinds of device: what admins added, newest first, and what comes with Weft, by name."""
    added = [
        KnownType(row.vendor_id, row.device_id, row.vendor, row.name, row.tflops, row.source)
        for row in session.scalars(sa.select(DeviceType).order_by(DeviceType.id.desc()))
    ]
    shipped = sorted(shipped_types(), key=lambda one: (one.vendor, one.name))
    return _matching(added, search), _matching(shipped, search)


def _matching(types: list[KnownType], search: str) -> list[KnownType]:
    words = search.lower().split()
    return [one for one in types if all(w in f"{one.vendor} {one.name}".lower() for w in words)]


def add_type(session: Session, new: KnownType, *, actor_id: int, now: datetime) -> None:
    """Add or change a kind of device. Raises InvalidInput with the field that is wrong."""
    if not 0 < new.vendor_id <= _MAX_PCI:
        raise InvalidInput("A PCI vendor id is between 0x0001 and 0xffff.", field="vendor_id")
    if not 0 < new.device_id <= _MAX_PCI:
        raise InvalidInput("A PCI device id is between 0x0001 and 0xffff.", field="device_id")
    if not 0 < new.tflops <= _MAX_TFLOPS:
        raise InvalidInput("Give the FP32 speed in TFLOPS.", field="tflops")
    for field, text, most in (
        ("vendor", new.vendor, 64), ("name", new.name, 128), ("source", new.source, 300),
    ):  # fmt: skip
        if not text.strip() or len(text) > most:
            raise InvalidInput(f"Fill this in, with {most} characters at most.", field=field)
    set_type(session, new)
    accounts.note(
        session, actor_id=actor_id, action="device_type.set",
        subject=f"{new.vendor_id:04x}:{new.device_id:04x}",
        detail=f"{new.name}: {new.tflops} TFLOPS, {new.source}", now=now,
    )  # fmt: skip
