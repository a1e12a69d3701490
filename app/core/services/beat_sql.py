"""The statements of `beat_store`, in SQLite's and PostgreSQL's words.

Each takes its rows as one JSON array of arrays. All are upserts, and rows come sorted, so
that two ingesters never wait for each other in a circle.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.orm import Session

DEVICES_COLUMN = 8
# A beat with the number of its node's last one is that one, sent again, for so long.
REPEATED_WITHIN_BUCKETS = 5
_LOCK_KEY = 0x77656674  # "weft": one ingester at a time on PostgreSQL

_BEATS = {
    "node_id": "integer", "bucket": "integer", "received_at": "timestamptz",
    "cpu_usage": "float8", "memory_usage": "float8", "disk_usage": "float8",
    "network_rx": "bigint", "network_tx": "bigint", "devices": "json",
    "last_at_ms": "bigint", "last_sequence": "bigint", "device_values": "json",
}  # fmt: skip
_NODE_DAYS = {
    "node_id": "integer", "day": "date", "heartbeats": "integer",
    "cpu_sum": "float8", "cpu_count": "integer", "memory_sum": "float8",
    "memory_count": "integer", "disk_sum": "float8", "disk_count": "integer",
    "network_rx": "bigint", "network_tx": "bigint",
    "first_at": "timestamptz", "last_at": "timestamptz",
}  # fmt: skip
_DEVICE_DAYS = {
    "node_id": "integer", "day": "date", "device_index": "integer", "device_key": "text",
    "device_name": "text", "device_id": "integer", "heartbeats": "integer",
    "multiplier_e4": "bigint", "points_e4": "bigint",
}  # fmt: skip
_NODES = {
    "id": "integer", "at": "timestamptz", "beats": "integer", "days": "integer",
    "first_day_beats": "integer",
}  # fmt: skip
_ADDED = (
    "heartbeats", "cpu_sum", "cpu_count", "memory_sum", "memory_count", "disk_sum",
    "disk_count", "network_rx", "network_tx",
)  # fmt: skip


def moment(at_ms: int) -> str:
    """A moment as both databases read it, and as SQLAlchemy keeps it in SQLite."""
    seconds, milliseconds = divmod(at_ms, 1000)
    return f"{_second(seconds)}.{milliseconds:03}000"


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    # Beats of a second come together, and formatting one takes longer than all else of it.
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


@dataclass(frozen=True)
class BeatSql:
    """The statements for one database."""

    lock: str | None
    beats: sa.TextClause
    node_days: sa.TextClause
    device_days: sa.TextClause
    nodes: sa.TextClause

    def serialise(self, session: Session) -> None:
        """Wait until no other ingester is in its transaction. SQLite does so by itself."""
        if self.lock is not None:
            session.execute(sa.text(self.lock))

    def insert_beats(
        self, session: Session, rows: list[list[Any]]
    ) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
        """The (node, bucket) pairs that are new, and those that took a further beat."""
        found = _execute(session, self.beats, rows)
        inserted = {(node_id, bucket) for node_id, bucket, is_merged in found if not is_merged}
        updated = {(node_id, bucket) for node_id, bucket, is_merged in found if is_merged}
        return inserted, updated

    def add_node_days(
        self, session: Session, rows: list[list[Any]]
    ) -> dict[tuple[int, str], int]:
        """Add to days; gives the beats of each afterwards."""
        found = _execute(session, self.node_days, rows)
        return {(node_id, str(day)): beats for node_id, day, beats in found}

    def add_device_days(self, session: Session, rows: list[list[Any]]) -> None:
        """Add beats to device days; their points follow."""
        _execute(session, self.device_days, rows)

    def touch_nodes(self, session: Session, rows: list[list[Any]]) -> None:
        """Note the last beat and the counts of nodes."""
        _execute(session, self.nodes, rows)


@cache
def for_dialect(name: str) -> BeatSql:
    """The statements for `sqlite` or `postgresql`."""
    is_postgres = name == "postgresql"
    read = _read_postgres if is_postgres else _read_sqlite
    lock = f"SELECT pg_advisory_xact_lock({_LOCK_KEY})" if is_postgres else None
    return BeatSql(
        lock,
        sa.text(_beats_sql(read)),
        sa.text(_node_days_sql(read)),
        sa.text(_device_days_sql(read)),
        sa.text(_nodes_sql(read)),
    )


def _execute(session: Session, statement: sa.TextClause, rows: list[list[Any]]) -> list[Any]:
    if not rows:
        return []
    result: Any = session.execute(statement, {"rows": msgspec.json.encode(rows).decode()})
    return list(result.all()) if result.returns_rows else []


def _read_sqlite(columns: dict[str, str]) -> str:
    parts = [f"json_extract(value, '$[{i}]') AS {name}" for i, name in enumerate(columns)]
    return f"SELECT {', '.join(parts)} FROM json_each(:rows) WHERE true"  # noqa: S608


def _read_postgres(columns: dict[str, str]) -> str:
    """Moments are written without a zone and mean UTC."""
    parts = []
    for i, (name, kind) in enumerate(columns.items()):
        if kind == "json":
            value = f"CAST(value -> {i} AS json)"
        elif kind == "timestamptz":
            value = f"CAST(value ->> {i} AS timestamp) AT TIME ZONE 'UTC'"
        else:
            value = f"CAST(value ->> {i} AS {kind})"
        parts.append(f"{value} AS {name}")
    rows = "jsonb_array_elements(CAST(:rows AS jsonb)) AS given(value)"
    return f"SELECT {', '.join(parts)} FROM {rows} WHERE true"  # noqa: S608


def _beats_sql(read: Any) -> str:
    columns = ", ".join(_BEATS)
    return f"""
        INSERT INTO heartbeats ({columns}, is_merged)
        SELECT {columns}, FALSE FROM ({read(_BEATS)}) AS given
        WHERE given.last_sequence = 0 OR given.last_sequence IS DISTINCT FROM (
            SELECT earlier.last_sequence FROM heartbeats AS earlier
            WHERE earlier.node_id = given.node_id AND earlier.bucket < given.bucket
              AND earlier.bucket >= given.bucket - {REPEATED_WITHIN_BUCKETS}
            ORDER BY earlier.bucket DESC LIMIT 1
        )
        ON CONFLICT (node_id, bucket) DO UPDATE SET
            network_rx = heartbeats.network_rx + excluded.network_rx,
            network_tx = heartbeats.network_tx + excluded.network_tx,
            last_at_ms = excluded.last_at_ms,
            last_sequence = excluded.last_sequence,
            is_merged = TRUE
        WHERE excluded.last_at_ms > heartbeats.last_at_ms
          AND (excluded.last_sequence = 0
               OR excluded.last_sequence <> heartbeats.last_sequence)
        RETURNING node_id, bucket, is_merged
    """  # noqa: S608


def _node_days_sql(read: Any) -> str:
    added = ", ".join(f"{name} = node_daily_stats.{name} + excluded.{name}" for name in _ADDED)
    return f"""
        INSERT INTO node_daily_stats ({", ".join(_NODE_DAYS)}) {read(_NODE_DAYS)}
        ON CONFLICT (node_id, day) DO UPDATE SET {added},
            first_at = CASE WHEN excluded.first_at < node_daily_stats.first_at
                       THEN excluded.first_at ELSE node_daily_stats.first_at END,
            last_at = CASE WHEN excluded.last_at > node_daily_stats.last_at
                      THEN excluded.last_at ELSE node_daily_stats.last_at END
        RETURNING node_id, day, heartbeats
    """


def _device_days_sql(read: Any) -> str:
    beats = "(device_points_daily.heartbeats + excluded.heartbeats)"
    return f"""
        INSERT INTO device_points_daily ({", ".join(_DEVICE_DAYS)}) {read(_DEVICE_DAYS)}
        ON CONFLICT (node_id, day, device_index, device_key) DO UPDATE SET
            heartbeats = {beats},
            points_e4 = ({beats} * 120 / 3600) * device_points_daily.multiplier_e4
    """


def _nodes_sql(read: Any) -> str:
    return f"""
        UPDATE nodes SET
            last_beat_at = CASE WHEN nodes.last_beat_at >= beaten.at
                           THEN nodes.last_beat_at ELSE beaten.at END,
            total_heartbeats = nodes.total_heartbeats + beaten.beats,
            uptime_days = nodes.uptime_days + beaten.days,
            first_day_heartbeats = nodes.first_day_heartbeats + beaten.first_day_beats
        FROM ({read(_NODES)}) AS beaten
        WHERE nodes.id = beaten.id
    """  # noqa: S608
