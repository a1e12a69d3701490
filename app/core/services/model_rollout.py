"""Where the catalogue's models are: which nodes want them, serve them, or still fetch them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import redis
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.errors import Conflict, NotFound
from app.core.models import CatalogModel, Node, NodeAssignment, Replica
from app.core.services import accounts, catalog, desired, node_reports
from app.core.services.catalog import CatalogEntry
from app.core.services.desired import ENGINE_OF_TYPE
from app.core.services.node_reports import Progress

MOST = 500


@dataclass(frozen=True, slots=True)
class Placed:
    """One model on one node. `state` is the replica's, None before the node reports one."""

    client_id: str
    node_name: str
    account_id: int
    is_wanted: bool
    by_hub: bool
    state: str | None
    progress: Progress | None


def list_placed(
    session: Session, store: redis.Redis, *, account_id: int | None
) -> dict[str, list[Placed]]:
    """Nodes by model name, each by its name; None: everybody's."""
    wanted = {
        (row.node_id, row.model_name): row.reason
        for row in session.execute(
            sa.select(
                NodeAssignment.node_id, NodeAssignment.model_name, NodeAssignment.reason
            ).limit(MOST)
        )
    }
    states = {
        (row.node_id, row.model_name): row.state
        for row in session.execute(
            sa.select(Replica.node_id, Replica.model_name, Replica.state)
            .where(Replica.model_name.in_(sa.select(CatalogModel.name)))
            .limit(MOST)
        )
    }
    keys = sorted({*wanted, *states})
    nodes = _nodes(session, sorted({node_id for node_id, _ in keys}), account_id)
    fetching = _fetching(store, list(nodes))
    found: dict[str, list[Placed]] = {}
    for node_id, name in keys:
        if node_id in nodes:
            client_id, node_name, owner_id = nodes[node_id]
            key = (node_id, name)
            found.setdefault(name, []).append(
                Placed(
                    client_id, node_name, owner_id, key in wanted, wanted.get(key) == "auto",
                    states.get(key), fetching.get(key),
                )
            )  # fmt: skip
    for places in found.values():
        places.sort(key=lambda one: (one.node_name, one.client_id))
    return found


def _nodes(
    session: Session, ids: list[int], account_id: int | None
) -> dict[int, tuple[str, str, int]]:
    query = sa.select(Node.id, Node.client_id, Node.name, Node.account_id).where(
        Node.id.in_(ids), Node.removed_at.is_(None)
    )
    if account_id is not None:
        query = query.where(Node.account_id == account_id)
    return {row[0]: (row[1], row[2], row[3]) for row in session.execute(query)}


def _fetching(store: redis.Redis, node_ids: list[int]) -> dict[tuple[int, str], Progress]:
    return {
        (node_id, one.model_name): one
        for node_id, downloads in node_reports.list_downloads_of(store, node_ids).items()
        for one in downloads
        if one.status != "Completed"
    }


def engine_of(entry: CatalogEntry) -> str | None:
    """The kind of engine that serves a catalogue model; None for those no agent starts."""
    return ENGINE_OF_TYPE.get(entry.engine_type)


def send_to_node(
    session: Session, entry_id: int, node: Node, *, actor_id: int, now: datetime
) -> None:
    """Want a catalogue model on a node. Raises NotFound, Conflict for one that can't be sent."""
    entry = catalog.get_version(session, entry_id)
    engine = engine_of(entry)
    if not entry.is_active or engine is None:
        raise Conflict("This version is not active, or no engine of ours serves it.")
    desired.assign_model(
        session, node, model_name=entry.name, engine=engine, catalog_model_id=entry.id,
        reason="owner", now=now,
    )  # fmt: skip
    accounts.note(
        session, actor_id=actor_id, action="model.send", subject=f"node {node.client_id}",
        detail=f"{entry.name} {entry.version}", now=now,
    )  # fmt: skip


def recall_from_node(
    session: Session, model_name: str, node: Node, *, actor_id: int, now: datetime
) -> None:
    """Want it there no longer."""
    desired.unassign_model(session, node, model_name, now=now)
    accounts.note(
        session, actor_id=actor_id, action="model.recall", subject=f"node {node.client_id}",
        detail=model_name, now=now,
    )  # fmt: skip


def set_active(
    session: Session, entry_id: int, *, is_active: bool, actor_id: int, now: datetime
) -> None:
    """Take a version out of the catalogue, or put it back. Raises NotFound."""
    row = session.get(CatalogModel, entry_id)
    if row is None:
        raise NotFound("The catalogue has no such version.")
    row.is_active, row.updated_at = is_active, now
    accounts.note(
        session, actor_id=actor_id, action="model.activate" if is_active else "model.deactivate",
        subject=f"{row.name} {row.version}"[:100], now=now,
    )  # fmt: skip
    session.flush()
