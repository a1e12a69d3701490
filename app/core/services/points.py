"""Points: what devices earned, read in two steps, and the ledger of what was granted.

A device's points of a day are the whole hours it was there times its multiplier. They are
counted by the ingester; here they are read, granted, and counted again from raw beats.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.errors import InvalidInput
from app.core.models import Account, DevicePointsDaily, Node, PointGrant
from app.core.services import accounts
from app.core.services.id_lists import listed

E4 = 10_000
# Beats that wait in Redis may reach a day that is over; it is looked at again for so long.
SETTLE_DAYS = 3
# So many days are counted one by one; of more, first the totals, then those of the page.
FEW_DAYS = 62


@dataclass(frozen=True, slots=True)
class PointsFilter:
    """Whose points, of which nodes, devices and days (both ends belong to it)."""

    account_id: int
    client_id: str | None = None
    client_name: str | None = None
    device_id: int | None = None
    start: date | None = None
    end: date | None = None


@dataclass(frozen=True, slots=True)
class DevicePoints:
    """One device on one day."""

    client_id: str
    client_name: str
    day: date
    heartbeats: int
    device_index: int
    device_name: str
    device_id: int
    points_e4: int


@dataclass(frozen=True, slots=True)
class PointsPage:
    """Some rows, and the totals of all that match."""

    rows: tuple[DevicePoints, ...]
    total_e4: int
    count: int


@dataclass(frozen=True, slots=True)
class Balance:
    """An account's points in ten-thousandths: earned by devices, and granted to the account.

    What was earned and not granted is held: the day is not over, or nobody has approved the
    provider.
    """

    earned_e4: int
    granted_e4: int
    held_e4: int


def list_points(
    session: Session, wanted: PointsFilter, *, page: int, page_size: int
) -> PointsPage:
    """Rows by day (newest first), node and device; totals also for a page past the end.

    First the nodes, then their days: nodes are few and days many. Which days the page lies
    on is counted from the newest back, so that only those rows are sorted.
    """
    node_ids = _find_nodes(session, wanted)
    if not node_ids:
        return PointsPage((), 0, 0)
    queries = _queries(wanted.device_id is not None)
    asked = {
        "ids": node_ids, "start": wanted.start or date.min, "end": wanted.end or date.max,
        "device_id": wanted.device_id,
    }  # fmt: skip
    offset = (page - 1) * page_size
    if wanted.start and wanted.end and (wanted.end - wanted.start).days <= FEW_DAYS:
        each = session.execute(queries.each_day, asked).all()
        days = [(day, number) for day, number, _ in each]
        count, total = sum(row[1] for row in each), sum(int(row[2]) for row in each)
    else:
        count, total, oldest, newest = session.execute(queries.totals, asked).one()
        asked |= {"start": oldest, "end": newest}
        days = _newest_days(session, queries, asked, offset + page_size) if count else []
    if count <= offset:
        return PointsPage((), int(total), count)
    first, last, before = _days_of_page(days, offset, page_size)
    asked |= {"start": last, "end": first, "limit": page_size, "offset": offset - before}
    rows = session.execute(queries.rows, asked)
    return PointsPage(tuple(DevicePoints(*row) for row in rows), int(total), count)


def _newest_days(
    session: Session, queries: _Queries, asked: dict[str, Any], rows: int
) -> list[tuple[date, int]]:
    """How many rows the newest days have, as many days as hold `rows` of them."""
    oldest, newest = asked["start"], asked["end"]
    stride = rows // len(asked["ids"]) + 2
    while True:
        since = max(oldest, newest - timedelta(days=min(stride, 40_000)))
        found = session.execute(queries.each_day, {**asked, "start": since})
        days = [(day, number) for day, number, _ in found]
        if since == oldest or sum(number for _, number in days) >= rows:
            return days
        stride *= 4


@dataclass(frozen=True, slots=True)
class _Queries:
    """Built once: building one for each call costs as much as running it."""

    totals: sa.Select[Any]
    each_day: sa.Select[Any]
    rows: sa.Select[Any]


@cache
def _queries(by_device: bool) -> _Queries:
    """The queries about nodes `ids` from day `start` to `end`, perhaps of one `device_id`."""
    its, node = DevicePointsDaily.__table__.c, Node.__table__.c
    conditions = [
        listed(its.node_id),
        its.day.between(sa.bindparam("start"), sa.bindparam("end")),
    ]
    if by_device:
        conditions.append(its.device_id == sa.bindparam("device_id"))
    points = sa.func.coalesce(sa.func.sum(its.points_e4), 0)
    ends = sa.func.min(its.day), sa.func.max(its.day)
    return _Queries(
        totals=sa.select(sa.func.count(), points, *ends).where(*conditions),
        each_day=sa.select(its.day, sa.func.count(), points)
        .where(*conditions)
        .group_by(its.day)
        .order_by(its.day.desc()),
        rows=sa.select(
            node.client_id, node.name, its.day, its.heartbeats, its.device_index,
            its.device_name, its.device_id, its.points_e4,
        )
        .join_from(DevicePointsDaily.__table__, Node.__table__, node.id == its.node_id)
        # Said twice, or PostgreSQL reads the table of nodes whole.
        .where(*conditions, listed(node.id))
        .order_by(its.day.desc(), node.client_id, its.device_index, its.device_key)
        .limit(sa.bindparam("limit"))
        .offset(sa.bindparam("offset")),
    )  # fmt: skip


def _find_nodes(session: Session, wanted: PointsFilter) -> list[int]:
    query = _node_ids(wanted.client_id is not None, bool(wanted.client_name))
    part = (wanted.client_name or "").lower()
    for sign in "/%_":
        part = part.replace(sign, f"/{sign}")
    asked = {"account_id": wanted.account_id, "client_id": wanted.client_id, "part": part}
    return list(session.scalars(query, asked))


@cache
def _node_ids(by_client: bool, by_name: bool) -> sa.Select[int]:
    node = Node.__table__.c
    query = sa.select(node.id).where(node.account_id == sa.bindparam("account_id"))
    if by_client:
        query = query.where(node.client_id == sa.bindparam("client_id"))
    if by_name:
        part = sa.bindparam("part", type_=sa.String())
        query = query.where(sa.func.lower(node.name).contains(part, escape="/"))
    return query


def _days_of_page(
    days: list[tuple[date, int]], offset: int, size: int
) -> tuple[date, date, int]:
    """The newest and the oldest day of a page, and how many rows lie before that newest day."""
    on_page: list[tuple[date, int]] = []
    passed = 0
    for day, number in days:
        if passed + number > offset and passed < offset + size:
            on_page.append((day, passed))
        passed += number
    return on_page[0][0], on_page[-1][0], on_page[0][1]


def balance(session: Session, account_id: int) -> Balance:
    """What an account has earned, was granted, and what is held."""
    earned = session.scalar(
        sa.select(sa.func.coalesce(sa.func.sum(DevicePointsDaily.points_e4), 0))
        .join(Node, Node.id == DevicePointsDaily.node_id)
        .where(Node.account_id == account_id)
    )
    granted, for_days = session.execute(
        sa.select(
            sa.func.coalesce(sa.func.sum(PointGrant.amount_e4), 0),
            sa.func.coalesce(
                sa.func.sum(sa.case((PointGrant.reason == "day", PointGrant.amount_e4))), 0
            ),
        ).where(PointGrant.account_id == account_id)
    ).one()
    return Balance(int(earned or 0), int(granted), int(earned or 0) - int(for_days))


def list_grants(session: Session, account_id: int, *, limit: int = 100) -> list[PointGrant]:
    """The newest lines of an account's ledger."""
    return list(
        session.scalars(
            sa.select(PointGrant)
            .where(PointGrant.account_id == account_id)
            .order_by(PointGrant.id.desc())
            .limit(limit)
        )
    )


def adjust(
    session: Session,
    account_id: int,
    amount_e4: int,
    *,
    actor_id: int,
    note: str,
    now: datetime,
) -> PointGrant:
    """An admin gives or takes points, and says why. Raises InvalidInput without a reason."""
    if not note.strip() or amount_e4 == 0:
        raise InvalidInput("Say how much, and why.", field="note")
    accounts.get_account(session, account_id)
    day = now.astimezone(UTC).date()
    sequence = session.scalar(
        sa.select(sa.func.count()).where(
            PointGrant.account_id == account_id,
            PointGrant.reason == "adjustment",
            PointGrant.day == day,
        )
    )
    grant = PointGrant(
        account_id=account_id, reason="adjustment", day=day, sequence=sequence or 0,
        amount_e4=amount_e4, actor_id=actor_id, note=note.strip()[:500], created_at=now,
    )  # fmt: skip
    session.add(grant)
    session.flush()
    return grant


def approve_provider(
    session: Session, account: Account, *, actor_id: int | None, now: datetime
) -> int:
    """Approve a provider and grant what was held; gives how much, in ten-thousandths."""
    account.is_gpu_provider_approved = True
    account.updated_at = now
    accounts.note(
        session, actor_id=actor_id, action="provider.approve",
        subject=f"account {account.id}", now=now,
    )  # fmt: skip
    session.flush()
    return settle_account(session, account.id, actor_id=actor_id, now=now)


def settle_points(session: Session, *, now: datetime) -> int:
    """Grant all approved providers the days that are over; gives how much."""
    approved = session.scalars(
        sa.select(Account.id).where(
            Account.is_gpu_provider_approved, Account.provider_registration_date.is_not(None)
        )
    ).all()
    return sum(settle_account(session, found, actor_id=None, now=now) for found in approved)


def settle_account(
    session: Session, account_id: int, *, actor_id: int | None, now: datetime
) -> int:
    """Grant one account its days that are over: each day's total less what it was granted.

    So it may run twice, or after late beats: the sum of the rows is always the day's total.
    """
    today = now.astimezone(UTC).date()
    granted: dict[date, tuple[int, int]] = {
        day: (int(amount), number)
        for day, amount, number in session.execute(
            sa.select(PointGrant.day, sa.func.sum(PointGrant.amount_e4), sa.func.count())
            .where(PointGrant.account_id == account_id, PointGrant.reason == "day")
            .group_by(PointGrant.day)
        )
    }
    earned = (
        sa.select(DevicePointsDaily.day, sa.func.sum(DevicePointsDaily.points_e4))
        .join(Node, Node.id == DevicePointsDaily.node_id)
        .where(Node.account_id == account_id, DevicePointsDaily.day < today)
        .group_by(DevicePointsDaily.day)
        .order_by(DevicePointsDaily.day)
    )
    if granted:
        since = min(max(granted), today - timedelta(days=SETTLE_DAYS))
        earned = earned.where(DevicePointsDaily.day >= since)
    given = 0
    for day, total in session.execute(earned).all():
        before, number = granted.get(day, (0, 0))
        if int(total) != before:
            given += int(total) - before
            session.add(
                PointGrant(
                    account_id=account_id, reason="day", day=day, sequence=number,
                    amount_e4=int(total) - before, actor_id=actor_id, created_at=now,
                    note="earned by devices" if number == 0 else "late heartbeats",
                )
            )  # fmt: skip
    session.flush()
    return given
