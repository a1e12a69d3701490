"""Models by name: which ones the network knows, and which some node serves now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.errors import ModelNotFound
from app.core.models import CatalogModel, KnownModel, Node, Replica
from app.core.services import placement


@dataclass(frozen=True, slots=True)
class AvailableModel:
    """A model that some online node serves now."""

    name: str
    first_seen_at: datetime
    replicas: int
    places: int
    context_tokens: int | None
    engine: str


def list_available(
    session: Session, *, now: datetime, offline_after_seconds: float
) -> list[AvailableModel]:
    """What can be asked for now, by name."""
    return [
        AvailableModel(*row) for row in session.execute(_available(now, offline_after_seconds))
    ]


def get_available(
    session: Session, name: str, *, now: datetime, offline_after_seconds: float
) -> AvailableModel:
    """One model that can be asked for now. Raises ModelNotFound."""
    query = _available(now, offline_after_seconds).where(Replica.model_name == name)
    row = session.execute(query).first()
    if row is None:
        raise ModelNotFound(f"The model `{name}` does not exist.", field="model")
    return AvailableModel(*row)


def _available(
    now: datetime, offline_after_seconds: float
) -> sa.Select[str, datetime, int, int, int | None, str]:
    return (
        sa.select(
            Replica.model_name,
            sa.func.min(KnownModel.first_seen_at),
            sa.func.count(),
            sa.func.sum(Replica.concurrency),
            sa.func.min(Replica.context_tokens),
            sa.func.min(Replica.engine),
        )
        .join(Node, Node.id == Replica.node_id)
        .join(KnownModel, KnownModel.name == Replica.model_name)
        .where(
            Replica.state == "ready",
            placement.is_reachable(),
            placement.serving_condition(now, offline_after_seconds),
        )
        .group_by(Replica.model_name)
        .order_by(Replica.model_name)
    )


@dataclass(frozen=True, slots=True)
class NetworkModel:
    """A model that the network knows, whether or not it is served now."""

    name: str
    is_available: bool
    min_gpu_memory_gb: int | None


def list_known(
    session: Session, *, now: datetime, offline_after_seconds: float
) -> list[NetworkModel]:
    """Everything that was ever served or stands in the catalogue, by name."""
    served = {
        model.name
        for model in list_available(
            session, now=now, offline_after_seconds=offline_after_seconds
        )
    }
    catalogue = {
        row[0]: row[1]
        for row in session.execute(
            sa.select(CatalogModel.name, sa.func.min(CatalogModel.min_gpu_memory_gb))
            .where(CatalogModel.is_active)
            .group_by(CatalogModel.name)
        )
    }
    known = set(session.scalars(sa.select(KnownModel.name))) | set(catalogue)
    return [NetworkModel(name, name in served, catalogue.get(name)) for name in sorted(known)]
