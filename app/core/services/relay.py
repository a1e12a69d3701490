"""Which web process holds a node's own connection, and the key to ask it."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.models import Node, Replica


def relay_key(secret_key: str, client_id: str) -> str:
    """What a worker shows the relay of one node, so that no stranger can speak to it."""
    return hmac.new(
        secret_key.encode(), f"relay:{client_id}".encode(), hashlib.sha256
    ).hexdigest()


def attach_relay(session: Session, node_id: int, address: str, *, now: datetime) -> None:
    """The node is reached at `address` from now on. What failed without it is forgotten."""
    session.execute(sa.update(Node).where(Node.id == node_id).values(relay=address))
    session.execute(
        sa.update(Replica)
        .where(
            Replica.node_id == node_id,
            Replica.endpoint_url.is_(None),
            Replica.backoff_until > now,
        )
        .values(failures=0, backoff_until=None)
    )


def detach_relay(session: Session, node_id: int, address: str) -> None:
    """The node is no longer at `address`; if it is at another one by now, it stays there."""
    session.execute(
        sa.update(Node).where(Node.id == node_id, Node.relay == address).values(relay=None)
    )


def detach_all(session: Session, address: str) -> int:
    """Nobody answers at `address` any more; gives how many nodes were there."""
    result = session.execute(
        sa.update(Node).where(Node.relay == address).values(relay=None).returning(Node.id)
    )
    return len(result.all())


def relays_of(session: Session, node_ids: Sequence[int]) -> dict[int, str | None]:
    """Where these nodes are held, by node."""
    rows = session.execute(sa.select(Node.id, Node.relay).where(Node.id.in_(node_ids)))
    return dict(rows.tuples().all())


def has_moved(session: Session, node_id: int, address: str | None) -> bool:
    """Whether a node that was asked at `address` is held elsewhere by now.

    Then its engine was not asked at all. None: the node was not asked through a relay.
    """
    if address is None:
        return False
    held_at = session.scalar(sa.select(Node.relay).where(Node.id == node_id))
    return held_at is not None and held_at != address


def list_relays(session: Session) -> list[str]:
    """All addresses at which nodes are held."""
    rows = session.scalars(sa.select(Node.relay).where(Node.relay.is_not(None)).distinct())
    return [address for address in rows if address is not None]
