"""How nodes have been: by day, by beat, and in one figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol

import msgspec
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.beats import BUCKET_SECONDS, BUCKETS_A_DAY
from app.core.domain.nodes import ValidStatus, WantedStatus, is_online, status_of
from app.core.models import Device, Heartbeat, Node, NodeDailyStats
from app.core.services.beat_store import bucket_of
from app.core.services.id_lists import listed

MAX_ROWS = 10_000
_EARLIEST = datetime.min.replace(tzinfo=UTC)
_LATEST = datetime.max.replace(tzinfo=UTC)

# Built once: building a statement for each call costs as much as running it.
_NODES, _DAYS, _BEATS = Node.__table__.c, NodeDailyStats.__table__.c, Heartbeat.__table__.c
_MINE = sa.and_(_NODES.account_id == sa.bindparam("account_id"), _NODES.removed_at.is_(None))
_OWN_NODES = sa.select(_NODES.id, _NODES.client_id, _NODES.name).where(_MINE)
_OWN_NODE = _OWN_NODES.where(_NODES.client_id == sa.bindparam("client_id"))
_OWN_STATES = sa.select(
    _NODES.wanted_status, _NODES.valid_status, _NODES.last_beat_at, _NODES.stopped_at
).where(_MINE)
_OWN_TFLOPS = (
    sa.select(sa.func.sum(Device.__table__.c.tflops))
    .join_from(Node.__table__, Device.__table__)
    .where(_MINE)
)
_OWN_MEAN_DAY = (
    sa.select(sa.func.avg(_DAYS.heartbeats))
    .join_from(Node.__table__, NodeDailyStats.__table__, _NODES.id == _DAYS.node_id)
    .where(_MINE, _DAYS.day == sa.bindparam("day"), _DAYS.heartbeats > 0)
)
_BEATS_OF_DAY = sa.select(_DAYS.node_id, _DAYS.heartbeats).where(
    listed(_DAYS.node_id), _DAYS.day == sa.bindparam("day")
)
_LIST_DAYS = (
    sa.select(
        _DAYS.node_id, _DAYS.day, _DAYS.heartbeats, _DAYS.cpu_sum, _DAYS.cpu_count,
        _DAYS.memory_sum, _DAYS.memory_count, _DAYS.disk_sum, _DAYS.disk_count,
        _DAYS.network_rx, _DAYS.network_tx, _DAYS.first_at, _DAYS.last_at,
    )
    .where(
        listed(_DAYS.node_id), _DAYS.day.between(sa.bindparam("since"), sa.bindparam("newest"))
    )
    .order_by(_DAYS.day.desc(), _DAYS.node_id)
    .limit(MAX_ROWS + 1)
)  # fmt: skip
# Each node's oldest stands at an end of the index; the oldest of all of them does not.
_NODES_OLDEST_DAY = sa.select(sa.func.min(_DAYS.day)).where(_DAYS.node_id == _NODES.id)
_OLDEST_DAY = sa.select(sa.func.min(_NODES_OLDEST_DAY.scalar_subquery())).where(
    listed(_NODES.id)
)
_LIST_BEATS = (
    sa.select(
        _BEATS.node_id, _BEATS.received_at, _BEATS.cpu_usage, _BEATS.memory_usage,
        _BEATS.disk_usage, _BEATS.network_rx, _BEATS.network_tx,
    )
    .where(
        listed(_BEATS.node_id),
        _BEATS.bucket.between(sa.bindparam("since"), sa.bindparam("newest")),
        _BEATS.received_at >= sa.bindparam("start"),
        _BEATS.received_at < sa.bindparam("end"),
    )
    .order_by(_BEATS.bucket.desc(), _BEATS.received_at.desc())
    .limit(MAX_ROWS + 1)
)  # fmt: skip
_NODES_OLDEST_BUCKET = sa.select(sa.func.min(_BEATS.bucket)).where(_BEATS.node_id == _NODES.id)
_OLDEST_BUCKET = sa.select(sa.func.min(_NODES_OLDEST_BUCKET.scalar_subquery())).where(
    listed(_NODES.id)
)


class NodeName(msgspec.Struct, frozen=True, gc=False):
    """A node as rows about it name it."""

    id: int
    client_id: str
    name: str


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` (included) to `end` (excluded); None is open."""

    start: datetime | None = None
    end: datetime | None = None


class DayRow(msgspec.Struct, frozen=True, gc=False):
    """A node's day."""

    node: NodeName
    day: date
    heartbeats: int
    cpu_usage: float | None
    memory_usage: float | None
    disk_usage: float | None
    network_rx: int
    network_tx: int
    first_at: datetime
    last_at: datetime


class BeatRow(msgspec.Struct, frozen=True, gc=False):
    """A counted beat."""

    node: NodeName
    at: datetime
    cpu_usage: float | None
    memory_usage: float | None
    disk_usage: float | None
    network_rx: int
    network_tx: int


@dataclass(frozen=True, slots=True)
class FleetStat:
    """An account's nodes in figures. `uptime_rate` is percent of yesterday."""

    total: int
    online: int
    maintenance: int
    warnings: int
    tflops: float
    uptime_rate: float


class History(Protocol):
    """What health is made from; `nodes.NodeView` is one."""

    @property
    def id(self) -> int:
        """The node's row."""
        ...

    @property
    def created_at(self) -> datetime:
        """When it joined."""
        ...

    @property
    def total_heartbeats(self) -> int:
        """All its counted beats."""
        ...

    @property
    def first_day_heartbeats(self) -> int:
        """Those of the day on which it joined."""
        ...

    @property
    def uptime_days(self) -> int:
        """On how many days."""
        ...


def own_nodes(
    session: Session, account_id: int, *, client_id: str | None = None
) -> dict[int, NodeName]:
    """An account's nodes by id."""
    query = _OWN_NODES if client_id is None else _OWN_NODE
    asked = {"account_id": account_id, "client_id": client_id}
    rows = session.connection().execute(query, asked).all()
    return {row[0]: NodeName(*row) for row in rows}


def health_of(session: Session, nodes: Sequence[History], *, now: datetime) -> dict[int, float]:
    """How reliably nodes beat, 0 to 100: the mean over their days of beats ÷ expected beats.

    A whole day expects 720, today those so far, a node's first day those since it joined.
    """
    seen = [node for node in nodes if node.uptime_days > 0]
    today = now.astimezone(UTC).date()
    midnight = datetime(today.year, today.month, today.day, tzinfo=UTC)
    expected_today = _expected(midnight, midnight, now)
    beats_today = _beats_of_day(session, [node.id for node in seen], today)
    found = {}
    for node in seen:
        rate, whole = 0.0, node.total_heartbeats
        if node.first_day_heartbeats:
            whole -= node.first_day_heartbeats
            first = node.created_at.replace(hour=0, minute=0, second=0, microsecond=0)
            rate += min(1.0, node.first_day_heartbeats / _expected(first, node.created_at, now))
        beats = beats_today.get(node.id, 0)
        if beats and node.created_at < midnight:
            whole -= beats
            rate += min(1.0, beats / expected_today)
        health = (rate + whole / BUCKETS_A_DAY) / node.uptime_days * 100
        found[node.id] = min(100.0, max(0.0, health))
    return found


def fleet_stat(
    session: Session, account_id: int, *, now: datetime, offline_after_seconds: float
) -> FleetStat:
    """The figures of an account's nodes. All zero for an account without any."""
    connection = session.connection()
    mine: dict[str, Any] = {"account_id": account_id}
    total = online = maintenance = warnings = 0
    for wanted, valid, last_beat_at, stopped_at in connection.execute(_OWN_STATES, mine).all():
        is_on = is_online(
            last_beat_at, stopped_at, now=now, offline_after_seconds=offline_after_seconds
        )
        total += 1
        online += is_on
        maintenance += status_of(wanted, online=is_on) == WantedStatus.MAINTENANCE
        warnings += valid != ValidStatus.VALID
    tflops = connection.scalar(_OWN_TFLOPS, mine)
    yesterday = now.astimezone(UTC).date() - timedelta(days=1)
    beats = connection.scalar(_OWN_MEAN_DAY, {**mine, "day": yesterday})
    rate = round(float(beats or 0) / BUCKETS_A_DAY * 100, 2)
    return FleetStat(total, online, maintenance, warnings, round(tflops or 0.0, 2), rate)


def list_days(
    session: Session, nodes: dict[int, NodeName], span: Span, *, now: datetime
) -> tuple[list[DayRow], bool]:
    """Days of these nodes, newest first, then by node; and whether older ones were left out."""
    first = _day(span.start)
    last = _day(span.end - timedelta(microseconds=1)) if span.end else None
    today = now.astimezone(UTC).date()
    newest = min(last, today) if last else today
    connection = session.connection()

    def read(days: int) -> Sequence[Any]:
        since = newest - timedelta(days=days - 1)
        asked = {"ids": nodes, "since": max(since, first or since), "newest": newest}
        return connection.execute(_LIST_DAYS, asked).all()

    oldest = first or connection.scalar(_OLDEST_DAY, {"ids": nodes}) or newest
    rows = _read_back(read, whole=(newest - oldest).days + 1, a_step=_rows_a_day(nodes, 1))
    return [_day_row(nodes, row) for row in rows[:MAX_ROWS]], len(rows) > MAX_ROWS


def list_beats(
    session: Session, nodes: dict[int, NodeName], span: Span, *, now: datetime
) -> tuple[list[BeatRow], bool]:
    """Counted beats of these nodes, newest first; and whether older ones were left out."""
    first = bucket_of(span.start) if span.start else None
    newest = bucket_of(min(span.end, now) if span.end else now)
    connection = session.connection()

    def read(buckets: int) -> Sequence[Any]:
        since = newest - buckets + 1
        asked = {
            "ids": nodes, "since": since if first is None else max(since, first),
            "newest": newest, "start": span.start or _EARLIEST, "end": span.end or _LATEST,
        }  # fmt: skip
        return connection.execute(_LIST_BEATS, asked).all()

    oldest = first
    if oldest is None:
        oldest = connection.scalar(_OLDEST_BUCKET, {"ids": nodes}) or newest
    rows = _read_back(read, whole=newest - oldest + 1, a_step=_rows_a_day(nodes, 1))
    found = [BeatRow(nodes[row[0]], *row[1:]) for row in rows[:MAX_ROWS]]
    return found, len(rows) > MAX_ROWS


def _read_back(
    read: Callable[[int], Sequence[Any]], *, whole: int, a_step: int
) -> Sequence[Any]:
    """Read from the newest step back, in growing strides: only what is shown gets sorted."""
    stride = max(1, min(whole, MAX_ROWS // a_step + 2))
    while True:
        rows = read(stride)
        if len(rows) > MAX_ROWS or stride >= whole:
            return rows
        stride = min(whole, stride * 4)


def _rows_a_day(nodes: dict[int, NodeName], per_node: int) -> int:
    return max(1, len(nodes) * per_node)


def _day(at: datetime | None) -> date | None:
    return at.astimezone(UTC).date() if at is not None else None


def _day_row(nodes: dict[int, NodeName], row: Any) -> DayRow:
    return DayRow(
        node=nodes[row.node_id],
        day=row.day,
        heartbeats=row.heartbeats,
        cpu_usage=_mean(row.cpu_sum, row.cpu_count),
        memory_usage=_mean(row.memory_sum, row.memory_count),
        disk_usage=_mean(row.disk_sum, row.disk_count),
        network_rx=row.network_rx,
        network_tx=row.network_tx,
        first_at=row.first_at,
        last_at=row.last_at,
    )


def _mean(total: float, count: int) -> float | None:
    return round(total / count, 2) if count else None


def _beats_of_day(session: Session, node_ids: Sequence[int], day: date) -> dict[int, int]:
    rows = session.connection().execute(_BEATS_OF_DAY, {"ids": node_ids, "day": day})
    return dict(rows.all())


def _expected(midnight: datetime, created_at: datetime, now: datetime) -> float:
    """Beats that a day which began at `midnight` could have brought of a node so far."""
    began = max(midnight, created_at)
    ended = min(midnight + timedelta(days=1), now)
    return max(1.0, (ended - began).total_seconds() / BUCKET_SECONDS)
