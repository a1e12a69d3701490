"""Machines as torbiz's clients describe them. One that was registered is one with its node."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.accounts import Identity
from app.core.domain.errors import NotFound
from app.core.models import HardwareRecord, Node
from app.core.services import nodes


class Description(TypedDict, total=False):
    """Texts, kept as they were given."""

    gpu_info: str
    cpu_name: str
    cpu_core: str
    cpu_frequency: str
    total_memory: str
    total_swap: str
    ram: str
    os_name: str
    os_version: str


@dataclass(frozen=True, slots=True)
class HardwareInfo:
    """A described machine and whose it is."""

    id: int
    account_id: int
    node_id: int | None
    description: Description


def info_of(record: HardwareRecord) -> HardwareInfo:
    """The record as the doors show it."""
    description = Description(
        gpu_info=record.gpu_info,
        cpu_name=record.cpu_name,
        cpu_core=record.cpu_core,
        cpu_frequency=record.cpu_frequency,
        total_memory=record.total_memory,
        total_swap=record.total_swap,
        ram=record.ram,
        os_name=record.os_name,
        os_version=record.os_version,
    )
    return HardwareInfo(record.id, record.account_id, record.node_id, description)


def list_hardware(
    session: Session, caller: Identity, *, limit: int, offset: int
) -> tuple[list[HardwareInfo], int]:
    """The caller's machines, an admin's are everybody's; oldest first, and how many there are."""
    mine = sa.true() if caller.is_admin else HardwareRecord.account_id == caller.account_id
    rows = session.scalars(
        sa.select(HardwareRecord).where(mine).order_by(HardwareRecord.id)
        .limit(limit).offset(offset)
    )  # fmt: skip
    total = session.scalar(sa.select(sa.func.count()).select_from(HardwareRecord).where(mine))
    return [info_of(row) for row in rows], total or 0


def get_hardware(session: Session, caller: Identity, record_id: int) -> HardwareRecord:
    """One of the caller's machines. Raises NotFound, also for somebody else's."""
    record = session.get(HardwareRecord, record_id) if 0 < record_id < 2**31 else None
    if record is None or not caller.may_act_for(record.account_id):
        raise NotFound("Not found.")
    return record


def add_hardware(
    session: Session, account_id: int, description: Description, *, now: datetime
) -> HardwareRecord:
    """Describe a machine of this account. All texts have to be there."""
    record = HardwareRecord(
        account_id=account_id, created_at=now, updated_at=now, **description
    )
    session.add(record)
    session.flush()
    return record


def change_hardware(
    session: Session, record: HardwareRecord, description: Description, *, now: datetime
) -> None:
    """Change the texts that are given."""
    for name, value in description.items():
        setattr(record, name, value)
    record.updated_at = now
    session.flush()


def remove_hardware(session: Session, record: HardwareRecord, *, now: datetime) -> None:
    """Remove a machine, and with it the node that it was registered as."""
    node_id = record.node_id
    session.delete(record)
    session.flush()
    node = session.get(Node, node_id) if node_id is not None else None
    if node is not None and node.removed_at is None:
        nodes.remove_node(session, node, now=now)
