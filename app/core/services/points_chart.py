"""Points by day and device for a chart, and all rows of a filter for an export."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.models import DevicePointsDaily, Node
from app.core.services.points import E4, DevicePoints, PointsFilter, list_points

DAYS = 30
MAX_DAYS = 92
NAMED_DEVICES = 3
OTHERS = "Other devices"
EXPORT_STEP = 5_000
MAX_EXPORT = 100_000
_FIRST_DAY = date(1970, 1, 1)  # nothing was earned before; a calendar has an end there too


@dataclass(frozen=True, slots=True)
class PointsChart:
    """Days in order, and points a day by device name, the one that earned most first."""

    days: tuple[date, ...]
    series: tuple[tuple[str, tuple[float, ...]], ...]


def chart_points(session: Session, wanted: PointsFilter, *, now: datetime) -> PointsChart:
    """The filter's days, the last 30 without one and at most 92."""
    last = max(wanted.end or now.astimezone(UTC).date(), _FIRST_DAY)
    earliest = last - timedelta(days=MAX_DAYS - 1)
    first = max(wanted.start or last - timedelta(days=DAYS - 1), earliest)
    days = tuple(first + timedelta(days=n) for n in range(max(0, (last - first).days + 1)))
    totals: dict[str, dict[date, int]] = defaultdict(dict)
    for day, name, total in session.execute(_daily(wanted, first, last)):
        totals[name or "Unknown device"][day] = int(total)
    names = sorted(totals, key=lambda name: (-sum(totals[name].values()), name))
    named = names if len(names) <= NAMED_DEVICES + 1 else names[:NAMED_DEVICES]
    series = [(name, _values([totals[name]], days)) for name in named]
    if len(named) < len(names):
        rest = [totals[name] for name in names[len(named) :]]
        series.append((OTHERS, _values(rest, days)))
    return PointsChart(days, tuple(series))


def _values(totals: list[dict[date, int]], days: tuple[date, ...]) -> tuple[float, ...]:
    return tuple(sum(one.get(day, 0) for one in totals) / E4 for day in days)


def _daily(wanted: PointsFilter, first: date, last: date) -> sa.Select[date, str, int]:
    points = DevicePointsDaily
    query = (
        sa.select(points.day, points.device_name, sa.func.sum(points.points_e4))
        .join(Node, Node.id == points.node_id)
        .where(Node.account_id == wanted.account_id, points.day.between(first, last))
        .group_by(points.day, points.device_name)
    )
    if wanted.client_id is not None:
        query = query.where(Node.client_id == wanted.client_id)
    if wanted.client_name:
        name = wanted.client_name.lower()
        query = query.where(sa.func.lower(Node.name).contains(name, autoescape=True))
    if wanted.device_id is not None:
        query = query.where(points.device_id == wanted.device_id)
    return query


def export_points(session: Session, wanted: PointsFilter) -> Iterator[DevicePoints]:
    """All rows of a filter as the table lists them, a hundred thousand at most."""
    for page in range(1, MAX_EXPORT // EXPORT_STEP + 1):
        rows = list_points(session, wanted, page=page, page_size=EXPORT_STEP).rows
        yield from rows
        if len(rows) < EXPORT_STEP:
            return
