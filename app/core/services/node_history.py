"""How a node has been over an hour, a day, a week or a month: some dozens of points each.

Short spans come from raw beats, put together in the database; a month comes from the days'
sums. What each device measured comes from a bounded number of raw beats, spread evenly over
the span. The number of points does not depend on how much history there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.beats import BUCKET_SECONDS, BUCKETS_A_DAY
from app.core.models import Heartbeat, NodeDailyStats
from app.core.services.beat_store import bucket_of
from app.core.services.id_lists import among

DAYS = 30
DAY_SECONDS = 86_400
# Span → (beat buckets in a point, points).
_BEAT_SPANS = {"1h": (1, 30), "24h": (8, 90), "7d": (60, 84)}
SPANS = (*_BEAT_SPANS, "30d")
# A device's points are made of one beat of so many: fewer than a thousand are read.
_STRIDES = {"1h": 1, "24h": 1, "7d": 6, "30d": 24}
_MEASURED = ("usage", "memory", "temperature", "power")
# Averaging in the database takes several times as long: it has to take JSON apart there.
_decoder = msgspec.json.Decoder()


@dataclass(frozen=True, slots=True)
class Point:
    """A stretch of time: means in percent, and bytes a second. None where nothing was heard."""

    at: datetime
    cpu: float | None = None
    memory: float | None = None
    disk: float | None = None
    received: float | None = None
    sent: float | None = None


@dataclass(frozen=True, slots=True)
class DeviceHistory:
    """What one device measured, a mean for each point of the span: %, %, °C and W."""

    index: int
    usage: list[float | None]
    memory: list[float | None]
    temperature: list[float | None]
    power: list[float | None]


def node_history(session: Session, node_id: int, span: str, *, now: datetime) -> list[Point]:
    """The points of a span in order, gaps among them. `span` is one of SPANS."""
    if span in _BEAT_SPANS:
        return _from_beats(session, node_id, *_BEAT_SPANS[span], now=now)
    return _from_days(session, node_id, now=now)


def device_history(
    session: Session, node_id: int, span: str, *, now: datetime
) -> list[DeviceHistory]:
    """The devices that measured something in a span; points as those of `node_history`."""
    step, count = _BEAT_SPANS.get(span, (BUCKETS_A_DAY, DAYS))
    first = bucket_of(now) // step - count + 1
    sampled = range(first * step, (first + count) * step, _STRIDES[span])
    found: dict[int, list[_Means]] = {}
    for bucket, text in session.execute(
        sa.select(Heartbeat.bucket, sa.cast(Heartbeat.device_values, sa.Text)).where(
            Heartbeat.node_id == node_id, among(session, Heartbeat.bucket, sampled)
        )
    ):
        place = bucket // step - first
        for index, *values in _decoder.decode(text):
            means = found.get(index)
            if means is None:
                means = found[index] = [_Means(count) for _ in range(len(_MEASURED))]
            for mean, value in zip(means, values, strict=False):
                if value is not None:
                    mean.add(place, value)
    return [
        DeviceHistory(index, *(one.values() for one in means))
        for index, means in sorted(found.items())
        if any(any(one.counts) for one in means)
    ]


class _Means:
    """Means of what is added, one for each place."""

    def __init__(self, places: int) -> None:
        self.sums = [0.0] * places
        self.counts = [0] * places

    def add(self, place: int, value: float) -> None:
        self.sums[place] += value
        self.counts[place] += 1

    def values(self) -> list[float | None]:
        return [
            round(total / number, 2) if number else None
            for total, number in zip(self.sums, self.counts, strict=True)
        ]


def _from_beats(
    session: Session, node_id: int, step: int, count: int, *, now: datetime
) -> list[Point]:
    last = bucket_of(now) // step
    first = last - count + 1
    place = Heartbeat.bucket - Heartbeat.bucket % step
    rows = session.execute(
        sa.select(
            place, sa.func.avg(Heartbeat.cpu_usage), sa.func.avg(Heartbeat.memory_usage),
            sa.func.avg(Heartbeat.disk_usage), sa.func.sum(Heartbeat.network_rx),
            sa.func.sum(Heartbeat.network_tx),
        )
        .where(
            Heartbeat.node_id == node_id,
            Heartbeat.bucket >= first * step,
            Heartbeat.bucket < (last + 1) * step,
        )
        .group_by(place)
    )  # fmt: skip
    seconds = step * BUCKET_SECONDS
    found = {int(row[0]) // step: row for row in rows}
    return [
        _point(_moment(number * step), found.get(number), seconds)
        for number in range(first, last + 1)
    ]


def _moment(bucket: int) -> datetime:
    return datetime.fromtimestamp(bucket * BUCKET_SECONDS, UTC)


def _point(at: datetime, row: Any, seconds: int) -> Point:
    if row is None:
        return Point(at)
    _, cpu, memory, disk, received, sent = row
    return Point(
        at, _number(cpu), _number(memory), _number(disk), _rate(received, seconds),
        _rate(sent, seconds),
    )  # fmt: skip


def _number(value: object) -> float | None:
    return None if value is None else round(float(str(value)), 2)


def _rate(total: object, seconds: int) -> float | None:
    return None if total is None else round(float(str(total)) / seconds, 1)


def _from_days(session: Session, node_id: int, *, now: datetime) -> list[Point]:
    today = now.astimezone(UTC).date()
    first = today - timedelta(days=DAYS - 1)
    rows = session.scalars(
        sa.select(NodeDailyStats).where(
            NodeDailyStats.node_id == node_id, NodeDailyStats.day >= first
        )
    )
    found = {row.day: row for row in rows}
    points = []
    for number in range(DAYS):
        day = first + timedelta(days=number)
        at = datetime(day.year, day.month, day.day, tzinfo=UTC)
        row = found.get(day)
        if row is None:
            points.append(Point(at))
            continue
        points.append(
            Point(
                at,
                _mean(row.cpu_sum, row.cpu_count),
                _mean(row.memory_sum, row.memory_count),
                _mean(row.disk_sum, row.disk_count),
                row.network_rx / DAY_SECONDS,
                row.network_tx / DAY_SECONDS,
            )
        )
    return points


def _mean(total: float, count: int) -> float | None:
    return round(total / count, 2) if count else None
