"""Counting points again, from raw heartbeats alone, and comparing."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.models import DevicePointsDaily, Heartbeat, Node
from app.core.services.beat_store import bucket_of, day_of_bucket, points_e4

Key = tuple[date, int, str]


@dataclass(frozen=True, slots=True)
class Counted:
    """What one device earned on one day."""

    name: str
    device_id: int
    multiplier_e4: int
    heartbeats: int

    @property
    def points_e4(self) -> int:
        """Whole hours times the multiplier, in ten-thousandths."""
        return points_e4(self.heartbeats, self.multiplier_e4)


@dataclass(frozen=True, slots=True)
class Difference:
    """A device's day that the table has otherwise than the beats say."""

    client_id: str
    day: date
    device_index: int
    stored_e4: int | None
    counted_e4: int | None


def first_whole_day(*, now: datetime, kept_days: int) -> date:
    """The oldest day of which no raw beat has been deleted yet."""
    return (now.astimezone(UTC) - timedelta(days=kept_days)).date() + timedelta(days=1)


def count_from_beats(session: Session, node_id: int, *, since: date) -> dict[Key, Counted]:
    """What a node's devices earned since a day, from raw beats and nothing else."""
    start = bucket_of(datetime(since.year, since.month, since.day, tzinfo=UTC))
    found: dict[Key, Counted] = {}
    beats: dict[Key, int] = defaultdict(int)
    for bucket, devices in session.execute(
        sa.select(Heartbeat.bucket, Heartbeat.devices).where(
            Heartbeat.node_id == node_id, Heartbeat.bucket >= start
        )
    ):
        for device in devices:
            key = (day_of_bucket(bucket), device["index"], device["key"])
            beats[key] += 1
            found[key] = Counted(device["name"], device["type_id"], device["multiplier_e4"], 0)
    return {
        key: dataclasses.replace(counted, heartbeats=beats[key])
        for key, counted in found.items()
    }


def rebuild_points(
    session: Session, *, now: datetime, kept_days: int, writes: bool = False
) -> list[Difference]:
    """Compare all device days that raw beats still cover; `writes` makes the table right."""
    since = first_whole_day(now=now, kept_days=kept_days)
    differences = []
    for node_id, client_id in session.execute(sa.select(Node.id, Node.client_id)).all():
        counted = count_from_beats(session, node_id, since=since)
        stored = {
            (row.day, row.device_index, row.device_key): row
            for row in session.scalars(
                sa.select(DevicePointsDaily).where(
                    DevicePointsDaily.node_id == node_id, DevicePointsDaily.day >= since
                )
            )
        }
        for key in sorted(counted.keys() | stored.keys()):
            right, row = counted.get(key), stored.get(key)
            if _is_right(row, right):
                continue
            differences.append(
                Difference(
                    client_id, key[0], key[1],
                    row.points_e4 if row else None, right.points_e4 if right else None,
                )
            )  # fmt: skip
            if writes:
                _correct(session, node_id, key, row, right)
        session.expire_all()
    session.flush()
    return differences


def _is_right(row: DevicePointsDaily | None, right: Counted | None) -> bool:
    if row is None or right is None:
        return False
    return (row.heartbeats, row.points_e4) == (right.heartbeats, right.points_e4)


def _correct(
    session: Session,
    node_id: int,
    key: Key,
    row: DevicePointsDaily | None,
    right: Counted | None,
) -> None:
    if right is None:
        session.delete(row)
        return
    if row is None:
        row = DevicePointsDaily(
            node_id=node_id, day=key[0], device_index=key[1], device_key=key[2],
            device_name=right.name, device_id=right.device_id,
            multiplier_e4=right.multiplier_e4,
        )  # fmt: skip
        session.add(row)
    row.heartbeats, row.points_e4 = right.heartbeats, right.points_e4
    session.flush()
