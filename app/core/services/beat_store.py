"""Writing beats and everything that is counted from them, in one transaction.

The first beat of a node in a bucket of 120 seconds counts; later ones add their network
bytes. A beat that was applied changes nothing when it comes again: its row knows the moment
and the agent's number of the last beat that it took, so that a beat whose answer got lost,
sent again a moment later, is recognised even in the bucket after. Rows travel as one JSON document a statement, which both
databases unpack faster than we could bind parameters.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.beats import BUCKET_SECONDS, BUCKETS_A_DAY, Beat, DeviceBeat, ReceivedBeat
from app.core.services import beat_sql
from app.core.services.beat_rating import Rater

_EPOCH = date(1970, 1, 1)
SECONDS_AN_HOUR = 3600


@dataclass(slots=True)
class _Day:
    """What one node's beats of one day add to its row."""

    heartbeats: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    counts: list[int] = field(default_factory=lambda: [0, 0, 0])
    network_rx: int = 0
    network_tx: int = 0
    first_ms: int = 0
    last_ms: int = 0


@dataclass(slots=True)
class _DeviceDay:
    name: str
    device_id: int
    multiplier_e4: int
    heartbeats: int = 0


def day_of_bucket(bucket: int) -> date:
    """The UTC day in which a bucket lies; no bucket lies in two."""
    return _EPOCH + timedelta(days=bucket // BUCKETS_A_DAY)


def bucket_of(at: datetime) -> int:
    """The bucket of a moment."""
    return int(at.timestamp()) // BUCKET_SECONDS


def points_e4(heartbeats: int, multiplier_e4: int) -> int:
    """Points of a day in ten-thousandths: whole hours times the multiplier."""
    return heartbeats * BUCKET_SECONDS // SECONDS_AN_HOUR * multiplier_e4


def apply_beats(session: Session, received: Sequence[ReceivedBeat], rater: Rater) -> int:
    """Apply beats in the order given, in this transaction; gives how many counted.

    Beats of nodes that do not exist are left out.
    """
    sql = beat_sql.for_dialect(session.get_bind().dialect.name)
    sql.serialise(session)
    rater.learn(session, {one.node_id for one in received})
    known = [one for one in received if rater.knows(one.node_id)]
    fresh = _without_repeats(known)
    rows = {id(one): _row(one, rater) for one in fresh}
    counted: list[ReceivedBeat] = []
    merged: list[ReceivedBeat] = []
    for beats in _rounds(fresh):
        inserted, updated = sql.insert_beats(session, [rows[id(one)] for one in beats])
        counted += [one for one in beats if (one.node_id, one.bucket) in inserted]
        merged += [one for one in beats if (one.node_id, one.bucket) in updated]
    new_days = _write_days(session, sql, counted, merged)
    _write_points(session, sql, counted, rows)
    _write_nodes(session, sql, known, counted, new_days, rater)
    return len(counted)


def _without_repeats(beats: Sequence[ReceivedBeat]) -> list[ReceivedBeat]:
    """The beats without those that were sent again and came in a later bucket.

    One statement cannot see the rows that it makes itself; what repeats an earlier
    statement's beat is left to the database.
    """
    before: dict[int, tuple[int, int]] = {}
    kept = []
    for one in beats:
        sequence, bucket = before.get(one.node_id, (0, 0))
        if one.beat.sequence and one.beat.sequence == sequence and one.bucket > bucket:
            continue
        before[one.node_id] = (one.beat.sequence, one.bucket)
        kept.append(one)
    return kept


def _rounds(beats: Sequence[ReceivedBeat]) -> list[list[ReceivedBeat]]:
    """The beats so that none of the lists has two of the same row; order is kept."""
    seen: dict[tuple[int, int], int] = defaultdict(int)
    rounds: list[list[ReceivedBeat]] = []
    for one in beats:
        key = (one.node_id, one.bucket)
        number = seen[key]
        seen[key] += 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(one)
    return [sorted(beats, key=lambda one: (one.node_id, one.bucket)) for beats in rounds]


def _row(one: ReceivedBeat, rater: Rater) -> list[Any]:
    beat = one.beat
    return [
        one.node_id, one.bucket, beat_sql.moment(one.at_ms), *_usages(beat),
        beat.network_rx or 0, beat.network_tx or 0, rater.rate_all(one.node_id, beat.devices),
        one.at_ms, beat.sequence, [_measured(device) for device in beat.devices],
    ]  # fmt: skip


def _measured(device: DeviceBeat) -> tuple[int | float | None, ...]:
    """What charts need of a device; the order is that of `node_history`."""
    return (
        device.index, _percent(device.usage), _percent(device.mem_usage), device.temp,
        device.power_usage,
    )  # fmt: skip


def _usages(beat: Beat) -> tuple[float | None, float | None, float | None]:
    """Percentages. An agent's arithmetic may be off by a little, a liar's by a lot."""
    return _percent(beat.cpu_usage), _percent(beat.memory_usage), _percent(beat.disk_usage)


def _percent(value: float | None) -> float | None:
    return None if value is None else min(max(value, 0.0), 100.0)


def _write_days(
    session: Session,
    sql: beat_sql.BeatSql,
    counted: list[ReceivedBeat],
    merged: list[ReceivedBeat],
) -> dict[int, int]:
    """Add to the days of nodes; gives how many days each node began."""
    days: dict[tuple[int, date], _Day] = defaultdict(_Day)
    for one in counted:
        _count(days[one.node_id, day_of_bucket(one.bucket)], one)
    for one in (*counted, *merged):
        day = days[one.node_id, day_of_bucket(one.bucket)]
        day.network_rx += one.beat.network_rx or 0
        day.network_tx += one.beat.network_tx or 0
        day.first_ms = min(day.first_ms or one.at_ms, one.at_ms)
        day.last_ms = max(day.last_ms, one.at_ms)
    rows = [
        [
            node_id, on.isoformat(), day.heartbeats,
            day.sums[0], day.counts[0], day.sums[1], day.counts[1], day.sums[2], day.counts[2],
            day.network_rx, day.network_tx,
            beat_sql.moment(day.first_ms), beat_sql.moment(day.last_ms),
        ]
        for (node_id, on), day in sorted(days.items())
    ]  # fmt: skip
    totals = sql.add_node_days(session, rows)
    begun: dict[int, int] = defaultdict(int)
    for (node_id, on), day in days.items():
        if day.heartbeats and totals.get((node_id, on.isoformat())) == day.heartbeats:
            begun[node_id] += 1
    return begun


def _count(day: _Day, one: ReceivedBeat) -> None:
    day.heartbeats += 1
    for place, value in enumerate(_usages(one.beat)):
        if value is not None:
            day.sums[place] += value
            day.counts[place] += 1


def _write_points(
    session: Session,
    sql: beat_sql.BeatSql,
    counted: list[ReceivedBeat],
    rows: dict[int, list[Any]],
) -> None:
    days: dict[tuple[int, date, int, str], _DeviceDay] = {}
    for one in counted:
        on = day_of_bucket(one.bucket)
        for device in rows[id(one)][beat_sql.DEVICES_COLUMN]:
            key = (one.node_id, on, device["index"], device["key"])
            if key not in days:
                days[key] = _DeviceDay(
                    device["name"], device["type_id"], device["multiplier_e4"]
                )
            days[key].heartbeats += 1
    sql.add_device_days(
        session,
        [
            [
                node_id, on.isoformat(), index, key, day.name, day.device_id, day.heartbeats,
                day.multiplier_e4, points_e4(day.heartbeats, day.multiplier_e4),
            ]
            for (node_id, on, index, key), day in sorted(days.items())
        ],
    )  # fmt: skip


def _write_nodes(
    session: Session,
    sql: beat_sql.BeatSql,
    known: list[ReceivedBeat],
    counted: list[ReceivedBeat],
    new_days: dict[int, int],
    rater: Rater,
) -> None:
    last: dict[int, int] = {}
    beats: dict[int, int] = defaultdict(int)
    on_first_day: dict[int, int] = defaultdict(int)
    for one in known:
        last[one.node_id] = max(last.get(one.node_id, 0), one.at_ms)
    for one in counted:
        beats[one.node_id] += 1
        if day_of_bucket(one.bucket) == rater.joined_on(one.node_id):
            on_first_day[one.node_id] += 1
    sql.touch_nodes(
        session,
        [
            [
                node_id, beat_sql.moment(at_ms), beats[node_id], new_days.get(node_id, 0),
                on_first_day[node_id],
            ]
            for node_id, at_ms in sorted(last.items())
        ],
    )  # fmt: skip


def expire_beats(
    session: Session, *, now: datetime, kept_days: int, node_ids: Sequence[int]
) -> int:
    """Delete raw beats of these nodes that are too old; gives how many."""
    before = bucket_of(now.astimezone(UTC) - timedelta(days=kept_days))
    deleted = 0
    for node_id in node_ids:
        result = session.execute(
            sa.text("DELETE FROM heartbeats WHERE node_id = :node_id AND bucket < :before"),
            {"node_id": node_id, "before": before},
        )
        deleted += result.rowcount  # type: ignore[attr-defined]
    return deleted
