"""What a provider's rooms show: history, points, grants, catalogue, downloads, logs."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import redis

from app.core.clock import utc_now
from app.core.domain.beats import BUCKET_SECONDS, Beat, DeviceBeat, ReceivedBeat
from app.core.models import (
    CatalogModel,
    DevicePointsDaily,
    Heartbeat,
    Node,
    NodeAssignment,
    NodeDailyStats,
    PointGrant,
)
from app.core.services import node_reports
from tests.dashboard.conftest import Rows
from tests.fixtures.accounts import Person


def today() -> date:
    return utc_now().astimezone(UTC).date()


def add_beats(rows: Rows, node: Node, *, count: int, every: int = 1, **values: Any) -> datetime:
    """`count` raw beats back from now, `every` so many buckets. Gives the now that was meant."""
    meant = utc_now()
    now = int(meant.timestamp())
    with rows.sessions.begin() as session:
        for number in range(count):
            bucket = now // BUCKET_SECONDS - number * every
            at = datetime.fromtimestamp(bucket * BUCKET_SECONDS, UTC)
            fields: dict[str, Any] = {
                "cpu_usage": 20.0 + number * 7 % 40, "memory_usage": 55.0 + number % 9,
                "disk_usage": 61.0, "network_rx": 4_000_000 + number * 90_000 % 7_000_000,
                "network_tx": 1_500_000,
            }  # fmt: skip
            session.add(
                Heartbeat(
                    node_id=node.id, bucket=bucket, received_at=at, devices=[],
                    last_at_ms=int(at.timestamp() * 1000), last_sequence=number,
                    **{**fields, **values},
                )
            )  # fmt: skip
    return meant


def add_days(rows: Rows, node: Node, *, count: int) -> None:
    """Daily sums of the last `count` days."""
    with rows.sessions.begin() as session:
        for number in range(count):
            day = today() - timedelta(days=number)
            at = datetime(day.year, day.month, day.day, tzinfo=UTC)
            session.add(
                NodeDailyStats(
                    node_id=node.id, day=day, heartbeats=700, cpu_sum=700 * (30 + number % 12),
                    cpu_count=700, memory_sum=700 * 55, memory_count=700, disk_sum=700 * 61,
                    disk_count=700, network_rx=9_000_000_000, network_tx=3_000_000_000,
                    first_at=at, last_at=at,
                )
            )  # fmt: skip


def add_points(
    rows: Rows, node: Node, *, days: int = 1, name: str = "RTX 4090", index: int = 0,
    device_id: int = 0x2684, points_e4: int = 230_000, first: date | None = None,
) -> None:  # fmt: skip
    """Points of one device for `days` days back from `first` (today)."""
    start = first or today()
    with rows.sessions.begin() as session:
        for number in range(days):
            session.add(
                DevicePointsDaily(
                    node_id=node.id, day=start - timedelta(days=number), device_index=index,
                    device_key=f"{index}-{name}"[:32], device_name=name, device_id=device_id,
                    heartbeats=690, multiplier_e4=10_000, points_e4=points_e4 + number % 5 * 9000,
                )
            )  # fmt: skip


def add_grant(rows: Rows, owner: Person, *, amount_e4: int = 230_000, note: str = "") -> None:
    now = utc_now()
    rows.add(
        PointGrant(
            account_id=owner.id, reason="day", day=today(), sequence=0, amount_e4=amount_e4,
            note=note, created_at=now,
        )
    )  # fmt: skip


def add_model(rows: Rows, name: str = "smollm2", **changes: Any) -> CatalogModel:
    now = utc_now()
    values: dict[str, Any] = {
        "name": name, "version": "1.0", "version_code": 1, "engine_type": 6,
        "download_url": "https://example.org/model.gguf", "checksum": "a" * 64,
        "expected_size": 138_000_000, "created_at": now, "updated_at": now,
    }  # fmt: skip
    found: CatalogModel = rows.add(CatalogModel(**{**values, **changes}))
    return found


def assign(
    rows: Rows, node: Node, model: CatalogModel, reason: str = "owner"
) -> NodeAssignment:
    found: NodeAssignment = rows.add(
        NodeAssignment(
            node_id=node.id, model_name=model.name, engine="llamacpp", reason=reason,
            catalog_model_id=model.id, created_at=utc_now(),
        )
    )  # fmt: skip
    return found


def report_download(store: redis.Redis, node: Node, name: str, **changes: Any) -> None:
    values: dict[str, Any] = {
        "model_name": name, "downloaded_bytes": 50_000_000, "total_bytes": 100_000_000,
        "percentage": 50.0, "speed_bps": 1_000_000, "status": "Downloading", "error": None,
    }  # fmt: skip
    progress = node_reports.Progress(**{**values, **changes})
    node_reports.keep_downloads(store, node.id, [progress], now=utc_now())


def report_log(store: redis.Redis, node: Node, *messages: str, level: str = "info") -> None:
    lines = [node_reports.LogLine(utc_now(), level, message) for message in messages]
    node_reports.keep_logs(store, node.id, source="engine", model_name="smollm2", lines=lines)


def report_beat(store: redis.Redis, node: Node) -> None:
    """What the node measures now."""
    gpu = DeviceBeat(
        index=0, usage=71.0, mem_usage=82.0, temp=64.0, power_usage=310.0, power_limit_w=450.0
    )
    beat = Beat(
        cpu_usage=12.4, memory_usage=55.0, disk_usage=61.0, devices=[gpu], uptime_seconds=86_400
    )
    at_ms = int(utc_now().timestamp() * 1000)
    node_reports.keep_live(store, [ReceivedBeat(node.id, at_ms, beat)])
