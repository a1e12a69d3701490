"""What nodes report that need not last: downloads under way, last lines of logs. In Redis."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import redis

from app.core.domain.beats import Beat, ReceivedBeat, decode_received, encode_received

LIVE_SECONDS = 180
DOWNLOAD_SECONDS = 300
LOG_SECONDS = 86_400
LOG_LINES = 1_000
_ORDER = {"Downloading": 0, "Pending": 1, "Failed": 2}


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


@dataclass(frozen=True, slots=True)
class Live:
    """What a node measured last: percent, and what each device and engine said."""

    at_ms: int
    beat: Beat


def keep_live(store: redis.Redis, beats: Iterable[ReceivedBeat]) -> None:
    """Keep the last of each node's beats where readers find it. `store` may be a pipeline."""
    latest: dict[int, ReceivedBeat] = {}
    for one in beats:
        if one.node_id not in latest or latest[one.node_id].at_ms < one.at_ms:
            latest[one.node_id] = one
    for node_id, one in latest.items():
        # Not `set`: going through its dozen options takes longer than the rest.
        command = ("SET", _live_key(node_id), encode_received(one), "EX", LIVE_SECONDS)
        store.execute_command(*command)  # type: ignore[no-untyped-call]


def list_live(store: redis.Redis, node_ids: Sequence[int]) -> dict[int, Live]:
    """The last beats of these nodes; nodes that are silent for minutes have none.

    Without Redis there are none either: what is measured is not worth an error.
    """
    if not node_ids:
        return {}
    try:
        raw: Any = store.mget([_live_key(node_id) for node_id in node_ids])
    except redis.RedisError:
        return {}
    found = {}
    for node_id, line in zip(node_ids, raw, strict=True):
        if line:
            one = decode_received(line)
            found[node_id] = Live(one.at_ms, one.beat)
    return found


def _live_key(node_id: int) -> str:
    return f"weft:node:{node_id}:live"


def keep_downloads(
    store: redis.Redis, node_id: int, downloads: Sequence[Progress], *, now: datetime
) -> None:
    """Replace what is known of a node's downloads. Raises redis.RedisError."""
    stamp = int(now.timestamp())
    rows = [{**asdict(one), "timestamp": stamp} for one in downloads]
    store.set(f"weft:node:{node_id}:downloads", json.dumps(rows), ex=DOWNLOAD_SECONDS)


def list_downloads(store: redis.Redis, node_id: int) -> list[Progress]:
    """The downloads that a node told of lately: under way, failed, completed."""
    return _decode_downloads(store.get(f"weft:node:{node_id}:downloads"))


def list_downloads_of(store: redis.Redis, node_ids: Sequence[int]) -> dict[int, list[Progress]]:
    """The downloads of many nodes, by node. Without Redis there are none."""
    if not node_ids:
        return {}
    try:
        raw: Any = store.mget([f"weft:node:{node_id}:downloads" for node_id in node_ids])
    except redis.RedisError:
        return {}
    return {
        node_id: _decode_downloads(line)
        for node_id, line in zip(node_ids, raw, strict=True)
        if line
    }


def _decode_downloads(line: Any) -> list[Progress]:
    found = [Progress(**row) for row in json.loads(line)] if line else []
    return sorted(found, key=lambda one: _ORDER.get(one.status, 3))


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
