"""How nodes have been: by day, by beat, and in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.beats import BUCKET_SECONDS, BUCKETS_A_DAY
from app.core.domain.nodes import ValidStatus, WantedStatus, is_online, status_of
from app.core.models import Device, Heartbeat, Node, NodeDailyStats
from app.core.services.beat_store import bucket_of
from app.core.services.id_lists import among

MAX_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class NodeName:
    """A node as rows about it name it."""

    id: int
    client_id: str
    name: str


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` (included) to `end` (excluded); None is open."""

    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class DayRow:
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


@dataclass(frozen=True, slots=True)
class BeatRow:
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
    query = sa.select(Node.id, Node.client_id, Node.name).where(
        Node.account_id == account_id, Node.removed_at.is_(None)
    )
    if client_id is not None:
        query = query.where(Node.client_id == client_id)
    return {row.id: NodeName(*row) for row in session.execute(query)}


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
    mine = sa.and_(Node.account_id == account_id, Node.removed_at.is_(None))
    total = online = maintenance = warnings = 0
    for wanted, valid, last_beat_at, stopped_at in session.execute(
        sa.select(Node.wanted_status, Node.valid_status, Node.last_beat_at, Node.stopped_at)
        .where(mine)
    ):  # fmt: skip
        is_on = is_online(
            last_beat_at, stopped_at, now=now, offline_after_seconds=offline_after_seconds
        )
        total += 1
        online += is_on
        maintenance += status_of(wanted, online=is_on) == WantedStatus.MAINTENANCE
        warnings += valid != ValidStatus.VALID
    tflops = session.scalar(
        sa.select(sa.func.sum(Device.tflops)).join(Node, Node.id == Device.node_id).where(mine)
    )
    yesterday = now.astimezone(UTC).date() - timedelta(days=1)
    beats = session.scalar(
        sa.select(sa.func.avg(NodeDailyStats.heartbeats))
        .join(Node, Node.id == NodeDailyStats.node_id)
        .where(mine, NodeDailyStats.day == yesterday, NodeDailyStats.heartbeats > 0)
    )
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

    def read(days: int) -> list[Any]:
        since = newest - timedelta(days=days - 1)
        conditions = [
            among(session, NodeDailyStats.node_id, nodes),
            NodeDailyStats.day >= since,
            NodeDailyStats.day <= newest,
        ]
        if first is not None:
            conditions.append(NodeDailyStats.day >= first)
        return list(
            session.scalars(
                sa.select(NodeDailyStats)
                .where(*conditions)
                .order_by(NodeDailyStats.day.desc(), NodeDailyStats.node_id)
                .limit(MAX_ROWS + 1)
            )
        )

    oldest = first or _oldest_day(session, nodes) or newest
    rows = _read_back(read, whole=(newest - oldest).days + 1, a_step=_rows_a_day(nodes, 1))
    return [_day_row(nodes, row) for row in rows[:MAX_ROWS]], len(rows) > MAX_ROWS


def list_beats(
    session: Session, nodes: dict[int, NodeName], span: Span, *, now: datetime
) -> tuple[list[BeatRow], bool]:
    """Counted beats of these nodes, newest first; and whether older ones were left out."""
    first = bucket_of(span.start) if span.start else None
    newest = bucket_of(min(span.end, now) if span.end else now)

    def read(buckets: int) -> list[Any]:
        conditions = [
            among(session, Heartbeat.node_id, nodes),
            Heartbeat.bucket > newest - buckets,
            Heartbeat.bucket <= newest,
        ]
        if span.start is not None:
            conditions.append(Heartbeat.bucket >= bucket_of(span.start))
            conditions.append(Heartbeat.received_at >= span.start)
        if span.end is not None:
            conditions.append(Heartbeat.received_at < span.end)
        return list(
            session.execute(
                sa.select(
                    Heartbeat.node_id, Heartbeat.received_at, Heartbeat.cpu_usage,
                    Heartbeat.memory_usage, Heartbeat.disk_usage, Heartbeat.network_rx,
                    Heartbeat.network_tx,
                )
                .where(*conditions)
                .order_by(Heartbeat.bucket.desc(), Heartbeat.received_at.desc())
                .limit(MAX_ROWS + 1)
            )
        )  # fmt: skip

    oldest = first if first is not None else (_oldest_bucket(session, nodes) or newest)
    rows = _read_back(read, whole=newest - oldest + 1, a_step=_rows_a_day(nodes, 1))
    found = [BeatRow(nodes[row[0]], *row[1:]) for row in rows[:MAX_ROWS]]
    return found, len(rows) > MAX_ROWS


def _read_back(read: Any, *, whole: int, a_step: int) -> list[Any]:
    """Read from the newest step back, in growing strides: only what is shown gets sorted."""
    stride = max(1, min(whole, MAX_ROWS // a_step + 2))
    while True:
        rows: list[Any] = read(stride)
        if len(rows) > MAX_ROWS or stride >= whole:
            return rows
        stride = min(whole, stride * 4)


def _rows_a_day(nodes: dict[int, NodeName], per_node: int) -> int:
    return max(1, len(nodes) * per_node)


def _oldest_day(session: Session, nodes: dict[int, NodeName]) -> date | None:
    return session.scalar(
        sa.select(sa.func.min(NodeDailyStats.day)).where(
            among(session, NodeDailyStats.node_id, nodes)
        )
    )


def _oldest_bucket(session: Session, nodes: dict[int, NodeName]) -> int | None:
    return session.scalar(
        sa.select(sa.func.min(Heartbeat.bucket)).where(among(session, Heartbeat.node_id, nodes))
    )


def _day(at: datetime | None) -> date | None:
    return at.astimezone(UTC).date() if at is not None else None


def _day_row(nodes: dict[int, NodeName], row: NodeDailyStats) -> DayRow:
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
    rows = session.execute(
        sa.select(NodeDailyStats.node_id, NodeDailyStats.heartbeats).where(
            among(session, NodeDailyStats.node_id, node_ids), NodeDailyStats.day == day
        )
    )
    return {row.node_id: row.heartbeats for row in rows}


def _expected(midnight: datetime, created_at: datetime, now: datetime) -> float:
    """Beats that a day which began at `midnight` could have brought of a node so far."""
    began = max(midnight, created_at)
    ended = min(midnight + timedelta(days=1), now)
    return max(1.0, (ended - began).total_seconds() / BUCKET_SECONDS)
