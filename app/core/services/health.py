"""Whether the parts of the hub are there, and how the network does."""

from __future__ import annotations

import redis
import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.core.clock import utc_now
from app.core.models import Node, UsageHour
from app.core.services import placement, runs

_WORKERS_KEY = "rq:workers"


def check(session: Session, store: redis.Redis) -> dict[str, str]:
    """`ok` or what is wrong, for the database, Redis and the workers."""
    return {
        "database": _check_database(session),
        "redis": _check_redis(store),
        "worker": _check_worker(store),
    }


def _check_database(session: Session) -> str:
    try:
        session.execute(sa.text("SELECT 1 FROM alembic_version"))
    except SQLAlchemyError:
        session.rollback()
        return "unreachable or not migrated"
    return "ok"


def _check_redis(store: redis.Redis) -> str:
    try:
        store.ping()
    except (redis.RedisError, OSError):
        return "unreachable"
    return "ok"


def _check_worker(store: redis.Redis) -> str:
    """RQ lists a worker until its key expires, so one that was killed is not counted for long."""
    try:
        names = store.smembers(_WORKERS_KEY)
        if any(store.exists(name) for name in names):  # type: ignore[union-attr]
            return "ok"
    except (redis.RedisError, OSError):
        return "unknown"
    return "none running"


def metrics(session: Session, store: redis.Redis, *, offline_after_seconds: float) -> bytes:
    """Gauges read from the database now: they are right whichever process is asked."""
    registry = CollectorRegistry()
    now = utc_now()
    online = session.scalar(
        sa.select(sa.func.count()).select_from(Node)
        .where(placement.online_condition(now, offline_after_seconds))
    )  # fmt: skip
    Gauge("weft_nodes_online", "Nodes that beat lately.", registry=registry).set(online or 0)
    live = Gauge("weft_runs_live", "Runs waiting and running.", ["state"], registry=registry)
    counts = runs.count_live(session)
    for state in ("queued", "running"):
        live.labels(state).set(counts.get(state, 0))
    hour = now.replace(minute=0, second=0, microsecond=0)
    row = session.execute(
        sa.select(
            sa.func.sum(UsageHour.runs), sa.func.sum(UsageHour.failed),
            sa.func.sum(UsageHour.input_tokens), sa.func.sum(UsageHour.output_tokens),
        ).where(UsageHour.hour == hour)
    ).one()  # fmt: skip
    names = ("runs", "failed_runs", "input_tokens", "output_tokens")
    for name, value in zip(names, row, strict=True):
        gauge = Gauge(f"weft_hour_{name}", f"{name} of this hour.", registry=registry)
        gauge.set(int(value or 0))
    for part, state in check(session, store).items():
        gauge = Gauge(f"weft_{part}_up", f"Whether the {part} answers.", registry=registry)
        gauge.set(1 if state == "ok" else 0)
    return generate_latest(registry)
