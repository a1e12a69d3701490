"""What nodes serve."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core.domain.errors import InvalidInput
from app.core.domain.nodes import ReplicaReport, ReplicaState, ReplicaVerdict, clean_text
from app.core.models import KnownModel, Node, Replica
from app.core.outbound import OutboundPolicy
from app.core.sealing import Sealer
from app.core.services import proofs
from app.core.services.id_lists import listed


def report_replicas(
    session: Session,
    node: Node,
    reports: Sequence[ReplicaReport],
    *,
    policy: OutboundPolicy,
    sealer: Sealer,
    now: datetime,
) -> list[ReplicaVerdict]:
    """Take the full list of what a node serves; what is not in it is gone.

    A replica whose URL the hub may not reach is not taken, with the reason. The node counts
    as heard from, so that it serves at once; points still come from its beats alone.
    """
    latest = {report.model_name: report for report in reports}
    # Names are looked up before the first write, so that no lock waits for a name server.
    reasons = {name: why_not(report, policy) for name, report in latest.items()}
    known = {row.model_name: row for row in session.scalars(_replicas_of(node.id))}
    for report in latest.values():
        if reasons[report.model_name] is not None:
            continue
        row = known.pop(report.model_name, None)
        if row is None:
            row = Replica(node_id=node.id, model_name=report.model_name, created_at=now)
            session.add(row)
        _fill(row, report, sealer, now)
        learn_model(session, report.model_name, now=now)
    for gone in known.values():
        session.delete(gone)
    node.last_beat_at = now
    session.flush()
    return [ReplicaVerdict(name, reason is None, reason) for name, reason in reasons.items()]


def add_replica(
    session: Session, node: Node, report: ReplicaReport, *, sealer: Sealer, now: datetime
) -> Replica:
    """Add or change one replica and leave the others. The caller has checked its URL."""
    row = session.scalar(_replicas_of(node.id).where(Replica.model_name == report.model_name))
    if row is None:
        row = Replica(node_id=node.id, model_name=report.model_name, created_at=now)
        session.add(row)
    _fill(row, report, sealer, now)
    learn_model(session, report.model_name, now=now)
    session.flush()
    return row


def why_not(report: ReplicaReport, policy: OutboundPolicy) -> str | None:
    """Why the hub can't take this replica; None when it can."""
    if report.endpoint_url is None:
        return None
    try:
        policy.check_url_resolved(report.endpoint_url)
    except InvalidInput as error:
        return error.message
    return None


class ReplicaView(msgspec.Struct, frozen=True, gc=False):
    """A replica as lists show it."""

    model_name: str
    served_name: str
    engine: str
    state: str
    endpoint_url: str | None
    concurrency: int
    context_tokens: int | None
    engine_version: str | None
    error: str | None
    created_at: datetime


_REPLICAS = Replica.__table__.c
_LIST_REPLICAS = (
    sa.select(_REPLICAS.node_id, *(_REPLICAS[name] for name in ReplicaView.__struct_fields__))
    .where(listed(_REPLICAS.node_id))
    .order_by(_REPLICAS.model_name)
)


def list_replicas(session: Session, node_ids: Sequence[int]) -> dict[int, list[ReplicaView]]:
    """The replicas of these nodes, by node, by name."""
    found: dict[int, list[ReplicaView]] = {}
    rows = session.connection().execute(_LIST_REPLICAS, {"ids": node_ids}).all()
    for node_id, *values in rows:
        found.setdefault(node_id, []).append(ReplicaView(*values))
    return found


def learn_model(session: Session, name: str, *, now: datetime) -> None:
    """Remember that the network has heard of a model."""
    if session.get(KnownModel, name) is not None:
        return
    try:
        with session.begin_nested():
            session.add(KnownModel(name=name, first_seen_at=now))
    except IntegrityError:
        pass  # another node brought it at the same moment


def _replicas_of(node_id: int) -> sa.Select[Replica]:
    return sa.select(Replica).where(Replica.node_id == node_id)


def _fill(row: Replica, report: ReplicaReport, sealer: Sealer, now: datetime) -> None:
    has_changed = (row.state, row.endpoint_url) != (report.state, report.endpoint_url)
    is_same = (row.engine, row.endpoint_url, row.served_name) == (
        report.engine, report.endpoint_url, report.served_name
    )  # fmt: skip
    if not is_same or report.state != ReplicaState.READY:
        row.probe_at = row.proven_at = None
    row.served_name = report.served_name
    row.engine = report.engine
    row.endpoint_url = report.endpoint_url
    row.sealed_api_key = sealer.seal(report.api_key) if report.api_key else None
    row.concurrency = report.concurrency
    row.context_tokens = report.context_tokens
    row.engine_version = clean_text(report.engine_version or "", 64) or None
    row.updated_at = now
    if proofs.is_wanted(row, report):
        proofs.ask_for(row, now=now)
        return
    if report.state == ReplicaState.READY and has_changed:
        row.failures, row.backoff_until = 0, None
    row.state = report.state
    row.error = clean_text(report.error or "", 500) or None
