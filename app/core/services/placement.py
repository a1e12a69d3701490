"""Choosing the node that serves a run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from app.core.database import AnySession, Queries
from app.core.domain.nodes import ValidStatus
from app.core.models import IS_RUNNING, KnownModel, Node, Replica, Run


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica that can take runs now."""

    replica_id: int
    node_id: int
    model_name: str
    served_name: str
    engine: str
    endpoint_url: str | None
    relay: str | None
    sealed_api_key: str | None
    concurrency: int
    client_id: str
    failures: int = 0
    # Its node is marked `warning`: it serves when nobody else has a place.
    is_doubted: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """What placement decided, and a sentence that says why."""

    candidate: Candidate | None
    why: str
    # Whether waiting can help: some node has the model, but is full.
    is_full: bool = False


def online_condition(now: datetime, offline_after_seconds: float) -> sa.ColumnElement[bool]:
    """Nodes that beat lately and have not said goodbye since."""
    return online_since(now - timedelta(seconds=offline_after_seconds))


def online_since(since: Any) -> sa.ColumnElement[bool]:
    """Nodes that beat after a moment, or the parameter of one, and have not left since."""
    return sa.and_(
        Node.removed_at.is_(None),
        Node.last_beat_at > since,
        sa.or_(Node.stopped_at.is_(None), Node.stopped_at < Node.last_beat_at),
    )


def serving_condition(now: datetime, offline_after_seconds: float) -> sa.ColumnElement[bool]:
    """Nodes that may be given new runs: online, not `invalid`, not draining."""
    return _may_serve(now - timedelta(seconds=offline_after_seconds))


def _may_serve(since: Any) -> sa.ColumnElement[bool]:
    return sa.and_(
        online_since(since),
        Node.valid_status.in_((ValidStatus.VALID, ValidStatus.WARNING)),
        Node.wanted_status.in_(("active", "online")),
    )


def is_reachable() -> sa.ColumnElement[bool]:
    """Replicas that the hub has a way to: an address, or their node's relay."""
    return sa.or_(Replica.endpoint_url.is_not(None), Node.relay.is_not(None))


# Built once: building a statement costs more than running it.
_CANDIDATES = (
    sa.select(
        Replica.id.label("replica_id"), Replica.node_id, Replica.model_name, Replica.served_name,
        Replica.engine, Replica.endpoint_url, Node.relay, Replica.sealed_api_key,
        Replica.concurrency, Node.client_id, Replica.failures,
        (Node.valid_status == ValidStatus.WARNING).label("is_doubted"),
    )
    .join(Node, Node.id == Replica.node_id)
    .where(
        Replica.state == "ready",
        sa.or_(Replica.backoff_until.is_(None), Replica.backoff_until < sa.bindparam("now")),
        is_reachable(),
        _may_serve(sa.bindparam("since")),
    )
)  # fmt: skip


def list_candidates(
    session: Queries, *, now: datetime, offline_after_seconds: float
) -> list[Candidate]:
    """Every replica that can take runs now, of all models."""
    since = now - timedelta(seconds=offline_after_seconds)
    rows = session.execute(_CANDIDATES, {"now": now, "since": since})
    return [Candidate(**row._mapping) for row in rows]


_runs: Any = Run.__table__
_OUTSTANDING = (
    sa.select(_runs.c.replica_id, sa.func.count())
    .where(IS_RUNNING, _runs.c.replica_id.is_not(None))
    .group_by(_runs.c.replica_id)
)


def count_outstanding(session: Queries) -> dict[int, int]:
    """Runs under way by replica."""
    rows = session.execute(_OUTSTANDING)
    return {replica_id: count for replica_id, count in rows if replica_id is not None}


def choose(
    model_name: str,
    candidates: Collection[Candidate],
    outstanding: Mapping[int, int],
    tried: Collection[int] = (),
) -> Choice:
    """The least loaded candidate by outstanding runs ÷ concurrency.

    Nodes that are marked `warning` come after all others that have a place. Replicas that failed this run already are taken again only when nobody else is left.
    """
    serving = [found for found in candidates if found.model_name == model_name]
    if not serving:
        return Choice(None, f"No online node serves {model_name}.")
    fresh = [found for found in serving if found.replica_id not in tried]
    if not fresh:
        return Choice(None, f"Every node that serves {model_name} has failed this run.")
    free = [c for c in fresh if outstanding.get(c.replica_id, 0) < c.concurrency]
    if not free:
        total = sum(found.concurrency for found in fresh)
        return Choice(None, f"All {total} places for {model_name} are taken.", is_full=True)
    best = min(
        free,
        key=lambda c: (
            c.is_doubted, outstanding.get(c.replica_id, 0) / c.concurrency, c.replica_id
        ),
    )  # fmt: skip
    load = f"{outstanding.get(best.replica_id, 0)} of {best.concurrency} places"
    doubt = " Its node is marked warning; no other has a place." if best.is_doubted else ""
    return Choice(best, f"Least loaded of {len(fresh)}: {load} taken.{doubt}")


def is_known(session: AnySession, model_name: str) -> bool:
    """Whether some node has ever served this model."""
    return session.get(KnownModel, model_name) is not None
