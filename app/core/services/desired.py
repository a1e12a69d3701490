"""What the hub wants of a node: a name, whether it drains, files to fetch, models to serve."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.nodes import is_draining
from app.core.models import CatalogModel, Node, NodeAssignment

# The numbers that fabric gives engines.
ENGINE_OF_TYPE = {1: "ollama", 2: "vllm", 6: "llamacpp", 7: "tgi", 8: "sglang"}


@dataclass(frozen=True, slots=True)
class Download:
    """A file that the node should have."""

    id: int
    model_name: str
    version: str
    download_url: str
    checksum: str | None
    expected_size: int | None
    engine_type: int


@dataclass(frozen=True, slots=True)
class WantedModel:
    """A model that the node should serve."""

    model_name: str
    engine: str
    file: str | None


@dataclass(frozen=True, slots=True)
class Desired:
    """The whole of it, under a number that grows with each change."""

    revision: int
    name: str
    draining: bool
    downloads: tuple[Download, ...]
    models: tuple[WantedModel, ...]


def desired_state(session: Session, node: Node) -> Desired:
    """What this node should be like."""
    assigned = session.scalars(
        sa.select(NodeAssignment)
        .where(NodeAssignment.node_id == node.id)
        .order_by(NodeAssignment.model_name)
    ).all()
    return Desired(
        revision=node.desired_revision,
        name=node.name,
        draining=is_draining(node.wanted_status),
        downloads=tuple(_downloads(session, node.id)),
        models=tuple(WantedModel(one.model_name, one.engine, one.file) for one in assigned),
    )


def _downloads(session: Session, node_id: int) -> list[Download]:
    rows = session.scalars(
        sa.select(CatalogModel)
        .join(NodeAssignment, NodeAssignment.catalog_model_id == CatalogModel.id)
        .where(NodeAssignment.node_id == node_id, CatalogModel.download_url.is_not(None))
        .order_by(CatalogModel.name)
    )
    return [
        Download(
            id=row.id,
            model_name=row.name,
            version=row.version,
            download_url=row.download_url or "",
            checksum=row.checksum,
            expected_size=row.expected_size,
            engine_type=row.engine_type,
        )
        for row in rows
    ]


def assign_model(
    session: Session,
    node: Node,
    *,
    model_name: str,
    engine: str,
    file: str | None = None,
    catalog_model_id: int | None = None,
    reason: str = "owner",
    now: datetime,
) -> NodeAssignment:
    """Want a model served by a node; the agent hears of it with its next beat."""
    row = session.scalar(
        sa.select(NodeAssignment).where(
            NodeAssignment.node_id == node.id, NodeAssignment.model_name == model_name
        )
    )
    if row is None:
        row = NodeAssignment(node_id=node.id, model_name=model_name, created_at=now)
        session.add(row)
    row.engine, row.file = engine, file
    row.catalog_model_id, row.reason = catalog_model_id, reason
    bump(node, now=now)
    session.flush()
    return row


def unassign_model(session: Session, node: Node, model_name: str, *, now: datetime) -> None:
    """Want a model no longer."""
    session.execute(
        sa.delete(NodeAssignment).where(
            NodeAssignment.node_id == node.id, NodeAssignment.model_name == model_name
        )
    )
    bump(node, now=now)
    session.flush()


def bump(node: Node, *, now: datetime) -> None:
    """Something that the agent should know has changed."""
    node.desired_revision += 1
    node.updated_at = now
