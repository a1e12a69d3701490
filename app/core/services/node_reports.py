"""What nodes report that need not last: downloads under way, last lines of logs. In Redis."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import redis

DOWNLOAD_SECONDS = 300
LOG_SECONDS = 86_400
LOG_LINES = 1_000
_UNDER_WAY = {"Downloading": 0, "Pending": 1}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download has got. `timestamp` is unix seconds, by the hub's clock."""

    model_name: str
    downloaded_bytes: int
    total_bytes: int | None
    percentage: float
    speed_bps: int
    status: str
    error: str | None
    timestamp: int = 0


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a node's log."""

    at: datetime
    level: str
    message: str


def keep_downloads(
    store: redis.Redis, node_id: int, downloads: Sequence[Progress], *, now: datetime
) -> None:
    """Replace what is known of a node's downloads. Raises redis.RedisError."""
    stamp = int(now.timestamp())
    rows = [{**asdict(one), "timestamp": stamp} for one in downloads]
    store.set(f"weft:node:{node_id}:downloads", json.dumps(rows), ex=DOWNLOAD_SECONDS)


def list_downloads(store: redis.Redis, node_id: int) -> list[Progress]:
    """The downloads that a node told of lately, those under way first."""
    raw: Any = store.get(f"weft:node:{node_id}:downloads")
    found = [Progress(**row) for row in json.loads(raw)] if raw else []
    return sorted(found, key=lambda one: _UNDER_WAY.get(one.status, 2))


def keep_logs(
    store: redis.Redis,
    node_id: int,
    *,
    source: str,
    model_name: str | None,
    lines: Sequence[LogLine],
) -> None:
    """Add to a node's log; the last thousand lines are kept for a day."""
    if not lines:
        return
    key = f"weft:node:{node_id}:logs"
    rows = [
        json.dumps(
            {
                "at": line.at.isoformat(), "level": line.level, "message": line.message,
                "source": source, "model_name": model_name,
            }
        )
        for line in lines
    ]  # fmt: skip
    with store.pipeline(transaction=False) as pipeline:
        pipeline.rpush(key, *rows)
        pipeline.ltrim(key, -LOG_LINES, -1)
        pipeline.expire(key, LOG_SECONDS)
        pipeline.execute()


def list_logs(store: redis.Redis, node_id: int, *, limit: int = 200) -> list[dict[str, Any]]:
    """The newest lines of a node's log, oldest first."""
    rows: Any = store.lrange(f"weft:node:{node_id}:logs", -limit, -1)
    return [json.loads(row) for row in rows]
