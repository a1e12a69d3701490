"""Replicas that say they are ready, and must answer once before they are given runs.

An engine may list its models and still be unable to generate. A worker has one token
generated, through the relay where runs take it, and only then is the replica ready. Until it
has worked the replica is `starting`, or `failed` with what went wrong, and is tried again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.nodes import ReplicaReport, ReplicaState, clean_text
from app.core.models import Node, Replica
from app.core.services.placement import Candidate, is_reachable, online_condition

# The kinds whose readiness is not believed: TGI's own client decides (ADR 0003).
KINDS = ("tgi",)
LONGEST_PAUSE_SECONDS = 60
BATCH = 32
MOST_OF_A_NODE = 2


@dataclass(frozen=True, slots=True)
class DueProof:
    """A replica that this worker is to try. `mark` is its claim: a change of it ends that."""

    candidate: Candidate
    mark: datetime


def is_wanted(row: Replica, report: ReplicaReport) -> bool:
    """Whether a replica that reports this has to answer before it is ready."""
    is_ready = report.state == ReplicaState.READY
    return is_ready and report.engine in KINDS and row.proven_at is None


def ask_for(row: Replica, *, now: datetime) -> None:
    """Have it tried soon. What an earlier try said of it stands until the next one."""
    if row.probe_at is None:
        row.state, row.error, row.probe_at = ReplicaState.STARTING, None, now
        row.failures, row.backoff_until = 0, None


def claim_due(
    session: Session,
    *,
    now: datetime,
    offline_after_seconds: float,
    busy_seconds: float,
    limit: int = BATCH,
    under_way: Mapping[int, int] | None = None,
) -> list[DueProof]:
    """Replicas to try now, of nodes that are there; no other worker takes them for a while.

    `under_way` counts the tries of each node that go on: a node whose engines hang keeps no
    other's waiting.
    """
    tries = Counter(under_way or {})
    full = [node_id for node_id, number in tries.items() if number >= MOST_OF_A_NODE]
    rows = session.execute(
        sa.select(
            Replica.id.label("replica_id"), Replica.node_id, Replica.model_name,
            Replica.served_name, Replica.engine, Replica.endpoint_url, Node.relay,
            Replica.sealed_api_key, Replica.concurrency, Node.client_id, Replica.failures,
            Replica.probe_at,
        )
        .join(Node, Node.id == Replica.node_id)
        .where(
            Replica.probe_at <= now, is_reachable(), Node.id.not_in(full),
            online_condition(now, offline_after_seconds),
        )
        .order_by(Replica.probe_at)
        .limit(limit)
    ).all()  # fmt: skip
    mark = now + timedelta(seconds=busy_seconds)
    due = []
    for row in rows:
        fields = dict(row._mapping)
        found = fields.pop("probe_at")
        if tries[fields["node_id"]] >= MOST_OF_A_NODE:
            continue
        if _move(session, fields["replica_id"], found, probe_at=mark):
            tries[fields["node_id"]] += 1
            due.append(DueProof(Candidate(**fields), mark))
    return due


def note_proven(session: Session, proof: DueProof, *, now: datetime) -> bool:
    """It answered: it is ready. False when it has changed since."""
    return _move(
        session, proof.candidate.replica_id, proof.mark, state=ReplicaState.READY, error=None,
        probe_at=None, proven_at=now, failures=0, backoff_until=None, updated_at=now,
    )  # fmt: skip


def note_failed(session: Session, proof: DueProof, *, why: str, now: datetime) -> bool:
    """It did not answer: it is tried again, after twice as long each time, a minute at most."""
    failures = proof.candidate.failures
    pause = min(2 ** min(failures, 10), LONGEST_PAUSE_SECONDS)
    return _move(
        session, proof.candidate.replica_id, proof.mark, state=ReplicaState.FAILED,
        error=clean_text(f"The engine was asked for one token and failed: {why}", 500),
        probe_at=now + timedelta(seconds=pause), failures=failures + 1, updated_at=now,
    )  # fmt: skip


def _move(session: Session, replica_id: int, mark: datetime, **values: object) -> bool:
    moved = session.execute(
        sa.update(Replica)
        .where(Replica.id == replica_id, Replica.probe_at == mark)
        .values(values)
        .execution_options(synchronize_session=False)
    )
    return moved.rowcount == 1  # type: ignore[attr-defined,no-any-return]
