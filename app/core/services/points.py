"""Points: what devices earned, read in two steps, and the ledger of what was granted.

A device's points of a day are the whole hours it was there times its multiplier. They are
counted by the ingester; here they are read, granted, and counted again from raw beats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.errors import InvalidInput
from app.core.models import Account, DevicePointsDaily, Node, PointGrant
from app.core.services import accounts
from app.core.services.id_lists import within
from app.core.services.name_search import has_part, part_of

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


class DevicePoints(msgspec.Struct, frozen=True, gc=False):
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

    Which days the page lies on is counted from the newest back, so that only those rows are
    sorted.
    """
    queries = _queries(_given(wanted))
    asked = _asked(wanted) | {"offset": (page - 1) * page_size, "limit": page_size}
    connection = session.connection()
    if not _is_long(wanted):
        rows = connection.execute(queries.page, asked).all()
        if rows:
            return _page(rows, int(rows[0][1]), rows[0][0])
    count, total, oldest, newest = connection.execute(queries.totals, asked).one()
    if count <= asked["offset"] or not _is_long(wanted):
        return PointsPage((), int(total), count)
    ends = max(oldest, asked["start"]), min(newest, asked["end"])
    rows = _newest_page(connection, queries.page, asked, count, *ends)
    return _page(rows, int(total), count)


def _is_long(wanted: PointsFilter) -> bool:
    """Whether there are so many days that grouping all of them takes longer than asking twice."""
    if wanted.start is None or wanted.end is None:
        return True
    return (wanted.end - wanted.start).days > FEW_DAYS


def _given(wanted: PointsFilter) -> frozenset[str]:
    """What is filtered by."""
    names = ("client_id", "device_id", "start", "end")
    given = {name for name in names if getattr(wanted, name) is not None}
    return frozenset(given | {"client_name"} if wanted.client_name else given)


def _asked(wanted: PointsFilter) -> dict[str, Any]:
    return {
        "account_id": wanted.account_id, "client_id": wanted.client_id,
        "part": part_of(wanted.client_name), "device_id": wanted.device_id, "start": wanted.start or date.min,
        "end": wanted.end or date.max,
    }  # fmt: skip


def _page(rows: Sequence[Any], total_e4: int, count: int) -> PointsPage:
    return PointsPage(tuple(DevicePoints(*row[2:]) for row in rows), total_e4, count)


def _newest_page(
    connection: sa.Connection,
    query: sa.Select[Any],
    asked: dict[str, Any],
    count: int,
    oldest: date,
    newest: date,
) -> Sequence[Any]:
    """The page from as many of the newest days as hold all rows up to its end."""
    needed = min(count, asked["offset"] + asked["limit"])
    days = (newest - oldest).days + 1
    stride = needed * days // count + 2
    while True:
        since = newest - timedelta(days=min(stride, days) - 1)
        rows = connection.execute(query, asked | {"start": since, "end": newest}).all()
        if stride >= days or (rows and rows[0][0] >= needed):
            return rows
        stride *= 4


@dataclass(frozen=True, slots=True)
class _Queries:
    """Built once: building one for each call costs as much as running it."""

    # How many rows there are, their sum, and between which days they lie.
    totals: sa.Select[Any]
    page: sa.Select[Any]


@cache
def _queries(given: frozenset[str]) -> _Queries:
    """The queries about an account's nodes that are filtered by what is given."""
    its, node = DevicePointsDaily.__table__.c, Node.__table__.c
    mine = [node.account_id == sa.bindparam("account_id")]
    if "client_id" in given:
        mine.append(node.client_id == sa.bindparam("client_id"))
    if "client_name" in given:
        mine.append(has_part(node.name))
    conditions = [within(its.node_id, sa.select(node.id).where(*mine))]
    if "device_id" in given:
        conditions.append(its.device_id == sa.bindparam("device_id"))
    since, until = its.day >= sa.bindparam("start"), its.day <= sa.bindparam("end")
    points = sa.func.coalesce(sa.func.sum(its.points_e4), 0)
    in_span = [one for name, one in (("start", since), ("end", until)) if name in given]
    totals = sa.select(
        sa.func.count(),
        points,
        _end_of_days(sa.func.min, mine),
        _end_of_days(sa.func.max, mine),
    )
    days = sa.select(its.day, sa.func.count().label("number"), points.label("points"))
    return _Queries(
        totals.where(*conditions, *in_span),
        _page_query(
            days.where(*conditions, since, until).group_by(its.day).cte("days"),
            [*mine, *conditions],
        ),
    )


def _end_of_days(
    end: Callable[[Any], sa.ColumnElement[Any]], mine: list[sa.ColumnElement[bool]]
) -> sa.ScalarSelect[Any]:
    """The first or the last day of these nodes, from an end of the index for each node."""
    its, node = DevicePointsDaily.__table__.c, Node.__table__.c
    of_node = sa.select(end(its.day)).where(its.node_id == node.id).correlate(Node.__table__)
    return (
        sa.select(end(of_node.scalar_subquery()))
        .select_from(Node.__table__)
        .where(*mine)
        .correlate(None)
        .scalar_subquery()
    )


def _page_query(days: sa.CTE, conditions: list[sa.ColumnElement[bool]]) -> sa.Select[Any]:
    """Count and sum of all `days`, and the rows of the page, of which those days are read."""
    its, node = DevicePointsDaily.__table__.c, Node.__table__.c
    offset = sa.bindparam("offset", type_=sa.BigInteger())
    limit = sa.bindparam("limit", type_=sa.BigInteger())
    reached = sa.func.sum(days.c.number).over(order_by=days.c.day.desc())
    placed = sa.select(days.c.day, days.c.number, reached.label("reached")).cte("placed")
    passed = placed.c.reached - placed.c.number
    on_page = (
        sa.select(
            sa.func.min(placed.c.day).label("oldest"), sa.func.max(placed.c.day).label("newest"),
            sa.cast(sa.func.coalesce(sa.func.min(passed), 0), sa.BigInteger).label("passed"),
        )
        .where(placed.c.reached > offset, passed < offset + limit)
        .cte("on_page")
    )  # fmt: skip

    def one(value: sa.ColumnElement[Any]) -> sa.ScalarSelect[Any]:
        return sa.select(value).scalar_subquery()

    return (
        sa.select(
            one(sa.cast(sa.func.sum(days.c.number), sa.BigInteger)),
            one(sa.cast(sa.func.sum(days.c.points), sa.BigInteger)),
            node.client_id, node.name, its.day, its.heartbeats, its.device_index,
            its.device_name, its.device_id, its.points_e4,
        )
        .join_from(DevicePointsDaily.__table__, Node.__table__, node.id == its.node_id)
        .where(
            *conditions, its.day.between(one(on_page.c.oldest), one(on_page.c.newest))
        )
        .order_by(its.day.desc(), node.client_id, its.device_index, its.device_key)
        .limit(limit)
        .offset(offset - one(on_page.c.passed))
    )  # fmt: skip


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
