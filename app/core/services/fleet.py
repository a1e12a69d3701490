"""What pages ask of many nodes at once: their names, and how busy they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.models import IS_RUNNING, Node, Run


def node_names(session: Session, node_ids: Iterable[int | None]) -> dict[int, str]:
    """Names by id, also of nodes that are gone."""
    wanted = {node_id for node_id in node_ids if node_id is not None}
    if not wanted:
        return {}
    rows = session.execute(sa.select(Node.id, Node.name).where(Node.id.in_(wanted)))
    return {row.id: row.name for row in rows}


def count_running(session: Session, node_ids: Sequence[int]) -> dict[int, int]:
    """Runs under way by node; idle nodes are left out."""
    rows = session.execute(
        sa.select(Run.node_id, sa.func.count())
        .where(IS_RUNNING, Run.node_id.in_(node_ids))
        .group_by(Run.node_id)
    )
    return {node_id: count for node_id, count in rows if node_id is not None}
