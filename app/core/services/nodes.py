"""Nodes: find, list, change, take out of service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.accounts import Identity
from app.core.domain.errors import Forbidden, InvalidInput, NotFound
from app.core.domain.nodes import (
    ReplicaState,
    ValidStatus,
    WantedStatus,
    clean_text,
    is_draining,
    status_of,
)
from app.core.ids import hash_secret, parse_client_id
from app.core.models import Account, Node, Replica
from app.core.services import accounts
from app.core.services.desired import bump
from app.core.services.inventory import DeviceView, list_devices
from app.core.services.name_search import has_part, part_of
from app.core.services.placement import online_condition, online_since
from app.core.services.replicas import ReplicaView, list_replicas

MAX_NAME = 64
# The edges hand rows on and import no tables.
NodeRow = Node
_OWNERS_CHOICE = (WantedStatus.ACTIVE, WantedStatus.ONLINE, WantedStatus.MAINTENANCE)


@dataclass(frozen=True, slots=True)
class NodeFilter:
    """Which nodes to list; what is given must all hold. No `account_id`: everybody's."""

    account_id: int | None = None
    client_id: str | None = None
    status: str | None = None
    name: str | None = None
    valid_status: str | None = None


class NodeView(msgspec.Struct, frozen=True):
    """A node with what belongs to it."""

    id: int
    client_id: str
    account_id: int
    owner: str
    name: str
    status: str
    wanted_status: str
    valid_status: str
    os_type: str
    agent_version: str
    last_beat_at: datetime | None
    created_at: datetime
    total_heartbeats: int
    uptime_days: int
    first_day_heartbeats: int
    is_draining: bool
    devices: tuple[DeviceView, ...]
    replicas: tuple[ReplicaView, ...]

    @property
    def tflops(self) -> float:
        """The speed of all devices that the device table knows."""
        return sum(device.tflops or 0.0 for device in self.devices)


# Columns instead of entities: a list of a thousand nodes takes half the time.
_LISTED = (
    Node.id, Node.client_id, Node.account_id, Account.username, Node.name, Node.wanted_status,
    Node.valid_status, Node.os_type, Node.agent_version, Node.last_beat_at, Node.stopped_at,
    Node.created_at, Node.total_heartbeats, Node.uptime_days, Node.first_day_heartbeats,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class NodeCounts:
    """How many nodes there are, by status."""

    online: int
    offline: int
    maintenance: int
    error: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.online + self.offline + self.maintenance + self.error


def identify_node(session: Session, secret: str) -> Node | None:
    """The node that this token belongs to, if it and its owner are still welcome."""
    return session.scalar(
        sa.select(Node)
        .join(Account, Account.id == Node.account_id)
        .where(
            Node.token_hash == hash_secret(secret),
            Node.removed_at.is_(None),
            Account.is_active,
        )
    )


def find_node(session: Session, client_id: str) -> Node | None:
    """The node with this public id, unless it was removed."""
    return session.scalar(
        sa.select(Node).where(Node.client_id == client_id, Node.removed_at.is_(None))
    )


def get_node(session: Session, caller: Identity, client_id: str) -> Node:
    """The caller's own node; an admin's any. Raises NotFound, also for what is no id."""
    parsed = parse_client_id(client_id)
    node = find_node(session, parsed) if parsed is not None else None
    if node is None or not caller.may_act_for(node.account_id):
        raise NotFound("Client not found.")
    return node


def list_nodes(
    session: Session,
    wanted: NodeFilter,
    *,
    now: datetime,
    offline_after_seconds: float,
    page: int = 1,
    page_size: int | None = None,
) -> tuple[list[NodeView], int]:
    """Nodes by name and id, and how many match. One query, and one for each kind of part."""
    since = now - timedelta(seconds=offline_after_seconds)
    listing = _listing(_given(wanted), wanted.status)
    asked = {
        "account_id": wanted.account_id, "client_id": wanted.client_id, "since": since,
        "valid_status": wanted.valid_status, "part": part_of(wanted.name),
        "size": page_size, "offset": (page - 1) * (page_size or 0),
    }  # fmt: skip
    # Over the connection: rows need nothing of what a session does for entities.
    connection = session.connection()
    if page_size is None:
        rows = connection.execute(listing.all, asked).all()
        total = len(rows)
    else:
        rows = connection.execute(listing.page, asked).all()
        total = connection.scalar(listing.total, asked) or 0
    ids = [row[0] for row in rows]
    devices, replicas = list_devices(session, ids), list_replicas(session, ids)
    views = [
        _view(row, devices.get(row[0], ()), replicas.get(row[0], ()), since) for row in rows
    ]
    return views, total


def count_nodes(
    session: Session,
    *,
    account_id: int | None = None,
    now: datetime,
    offline_after_seconds: float,
) -> NodeCounts:
    """How many nodes an account (or the network) has, by status."""
    online = sa.case((online_condition(now, offline_after_seconds), 1), else_=0)
    query = (
        sa.select(Node.wanted_status, online.label("is_online"), sa.func.count())
        .where(Node.removed_at.is_(None))
        .group_by(Node.wanted_status, online)
    )
    if account_id is not None:
        query = query.where(Node.account_id == account_id)
    counts = {"online": 0, "offline": 0, "maintenance": 0, "error": 0}
    for status, is_on, number in session.execute(query):
        counts[status_of(status, online=bool(is_on))] += number
    return NodeCounts(**counts)


def edit_node(
    session: Session,
    caller: Identity,
    node: Node,
    *,
    name: str | None = None,
    os_type: str | None = None,
    wanted_status: str | None = None,
    valid_status: str | None = None,
    now: datetime,
) -> None:
    """Change what is given. Raises Forbidden for what is an admin's to say, InvalidInput."""
    if valid_status is not None and valid_status != node.valid_status:
        if not caller.is_admin:
            raise Forbidden("Only an admin may set valid_status.")
        node.valid_status = ValidStatus(valid_status)
        accounts.note(
            session, actor_id=caller.account_id or None, action="node.valid_status",
            subject=f"node {node.client_id}", detail=valid_status, now=now,
        )  # fmt: skip
    if wanted_status is not None and wanted_status != node.wanted_status:
        set_wanted_status(node, WantedStatus(wanted_status), by_admin=caller.is_admin, now=now)
    if name is not None:
        rename(node, name, now=now)
    if os_type is not None:
        node.os_type = clean_text(os_type, 64)
    node.updated_at = now
    session.flush()


def rename(node: Node, name: str, *, now: datetime) -> None:
    """Give a node another name. Raises InvalidInput for one that shows nothing."""
    cleaned = clean_text(name, MAX_NAME)
    if not cleaned:
        raise InvalidInput("Give the node a name.", field="name")
    if cleaned != node.name:
        node.name = cleaned
        bump(node, now=now)


def set_wanted_status(
    node: Node, status: WantedStatus, *, by_admin: bool = False, now: datetime
) -> None:
    """Take a node out of service (maintenance) or back. Raises Forbidden.

    Whether it is online nobody can set: that follows from its beats. `offline` drains as
    maintenance does.
    """
    if status is WantedStatus.OFFLINE:
        status = WantedStatus.MAINTENANCE
    if not by_admin and status not in _OWNERS_CHOICE:
        raise Forbidden("A node's owner may set it to online or maintenance.")
    if status != node.wanted_status:
        node.wanted_status = status
        bump(node, now=now)


def say_goodbye(session: Session, node: Node, *, now: datetime) -> None:
    """The agent stops cleanly: the node is offline at once, until its next beat."""
    node.stopped_at = now
    session.flush()


def remove_node(session: Session, node: Node, *, now: datetime) -> None:
    """Take a node out of the network. Its token opens nothing more; what it earned stays."""
    node.removed_at = now
    node.updated_at = now
    node.token_hash = None
    session.execute(
        sa.update(Replica)
        .where(Replica.node_id == node.id)
        .values(state=ReplicaState.STOPPED, updated_at=now)
    )
    session.flush()


def list_ids(session: Session, *, after_id: int, limit: int) -> list[int]:
    """Ids of nodes, also of removed ones, in order."""
    return list(
        session.scalars(
            sa.select(Node.id).where(Node.id > after_id).order_by(Node.id).limit(limit)
        )
    )


def drop_silent(session: Session, *, now: datetime, days: int) -> int:
    """Remove nodes without a way to an engine and without a beat for so long; how many."""
    reachable = sa.exists().where(Replica.node_id == Node.id, Replica.endpoint_url.is_not(None))
    silent = session.scalars(
        sa.select(Node).where(
            Node.removed_at.is_(None),
            Node.relay.is_(None),
            sa.func.coalesce(Node.last_beat_at, Node.created_at) < now - timedelta(days=days),
            ~reachable,
        )
    ).all()
    for node in silent:
        remove_node(session, node, now=now)
    return len(silent)


def _given(wanted: NodeFilter) -> frozenset[str]:
    """What is filtered by. Account 0 is a filter too: that account owns nothing."""
    names = ("account_id", "client_id", "valid_status")
    given = {name for name in names if getattr(wanted, name) is not None}
    return frozenset(given | {"name"} if wanted.name else given)


@dataclass(frozen=True, slots=True)
class _Listing:
    """Built once: building one for each call costs as much as running it."""

    all: sa.Select[*tuple[Any, ...]]
    page: sa.Select[*tuple[Any, ...]]
    total: sa.Select[int]


@lru_cache(256)
def _listing(given: frozenset[str], status: str | None) -> _Listing:
    """The statements about nodes that are filtered by what is given."""
    conditions = _conditions(given, status)
    rows = (
        sa.select(*_LISTED)
        .join(Account, Account.id == Node.account_id)
        .where(*conditions)
        .order_by(Node.name, Node.client_id)
    )
    return _Listing(
        rows,
        rows.limit(sa.bindparam("size")).offset(sa.bindparam("offset")),
        sa.select(sa.func.count()).select_from(Node).where(*conditions),
    )


def _conditions(given: frozenset[str], status: str | None) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = [Node.removed_at.is_(None)]
    columns: Any = (Node.account_id, Node.client_id, Node.valid_status)
    found += [one == sa.bindparam(one.key) for one in columns if one.key in given]
    if "name" in given:
        found.append(has_part(Node.name))
    if status is not None:
        found.append(_has_status(status))
    return found


def _has_status(status: str) -> sa.ColumnElement[bool]:
    online = online_since(sa.bindparam("since"))
    if status == WantedStatus.OFFLINE:
        # NULL (never beat) is not "not online" in SQL.
        return sa.not_(sa.func.coalesce(online, sa.false()))
    if status in {WantedStatus.MAINTENANCE, WantedStatus.ERROR}:
        return sa.and_(online, Node.wanted_status == status)
    return sa.and_(
        online, Node.wanted_status.not_in((WantedStatus.MAINTENANCE, WantedStatus.ERROR))
    )


def _view(
    row: Any, devices: Sequence[DeviceView], replicas: Sequence[ReplicaView], since: datetime
) -> NodeView:
    """By position: this is done for every node of a long list."""
    (
        node_id, client_id, account_id, owner, name, wanted, valid, os_type, agent_version,
        last_beat_at, stopped_at, created_at, beats, days, first_day,
    ) = row  # fmt: skip
    is_on = (
        last_beat_at is not None
        and last_beat_at > since
        and (stopped_at is None or stopped_at < last_beat_at)
    )
    return NodeView(
        node_id, client_id, account_id, owner, name, status_of(wanted, online=is_on), wanted,
        valid, os_type, agent_version, last_beat_at, created_at, beats, days, first_day,
        is_draining(wanted), tuple(devices), tuple(replicas),
    )  # fmt: skip
