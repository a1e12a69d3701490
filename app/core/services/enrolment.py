"""How a machine becomes a node: enrolment tokens, and joining with one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.accounts import Identity
from app.core.domain.errors import Forbidden, InvalidInput, Unauthenticated
from app.core.domain.nodes import Inventory, WantedStatus, clean_text
from app.core.ids import hash_secret, new_client_id, new_secret, parse_client_id
from app.core.models import Account, EnrolmentToken, Node
from app.core.services import accounts, nodes
from app.core.services.inventory import update_inventory

MAX_NAME = 64


@dataclass(frozen=True, slots=True)
class NewNode:
    """What a machine says of itself when it joins."""

    name: str
    os_type: str
    agent_version: str = ""
    client_id: str | None = None
    inventory: Inventory | None = None


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A node and its fresh token, which exists in clear here and nowhere else."""

    node: Node
    node_token: str


def create_enrolment_token(
    session: Session, account: Account, *, now: datetime, hours: float = 24, uses: int = 1
) -> tuple[EnrolmentToken, str]:
    """A token with which `uses` machines may join the account, and its secret."""
    if not 0 < hours <= 24 * 365 or not 1 <= uses <= 10_000:
        raise InvalidInput("A token is good for up to a year and 10 000 machines.")
    secret = new_secret("wn_")
    row = EnrolmentToken(
        account_id=account.id,
        secret_hash=hash_secret(secret),
        created_at=now,
        expires_at=now + timedelta(hours=hours),
        uses_left=uses,
    )
    session.add(row)
    session.flush()
    return row, secret


def enrol_with_token(
    session: Session, secret: str, new: NewNode, *, now: datetime, auto_approve: bool
) -> Enrolled:
    """Join the account that made the token.

    Raises Unauthenticated for a token that is unknown, over or used up, Forbidden when the
    node is somebody else's.
    """
    token = session.scalar(
        sa.select(EnrolmentToken).where(EnrolmentToken.secret_hash == hash_secret(secret))
    )
    if token is None or token.expires_at <= now:
        raise Unauthenticated("This enrolment token is not known or has expired.")
    account = session.get(Account, token.account_id)
    if account is None or not account.is_active:
        raise Unauthenticated("The account of this enrolment token is closed.")
    if not _is_own_return(session, token, new.client_id):
        _use_up(session, token)
    enrolled = enrol_node(session, account, new, now=now, auto_approve=auto_approve)
    token.node_id = enrolled.node.id
    session.flush()
    return enrolled


def enrol_node(
    session: Session, account: Account, new: NewNode, *, now: datetime, auto_approve: bool
) -> Enrolled:
    """Make the account's node, or give the one with this `client_id` a new token.

    Raises Forbidden when another account has that id, InvalidInput when it is none.
    """
    client_id = _client_id(new.client_id)
    node = session.scalar(sa.select(Node).where(Node.client_id == client_id))
    if node is not None and node.account_id != account.id:
        raise Forbidden("This client id belongs to another account.")
    if node is None:
        node = Node(client_id=client_id, account_id=account.id, created_at=now)
        session.add(node)
        node.name = clean_text(new.name, MAX_NAME) or f"node-{client_id[:6]}"
    secret = new_secret("wk_")
    node.token_hash = hash_secret(secret)
    node.os_type = clean_text(new.os_type, 64)
    node.agent_version = clean_text(new.agent_version, 32)
    node.updated_at = now
    node.removed_at = None
    session.flush()
    if new.inventory is not None:
        update_inventory(session, node, new.inventory, now=now)
    accounts.become_provider(session, account, now=now, auto_approve=auto_approve)
    return Enrolled(node, secret)


def announce_node(
    session: Session,
    caller: Identity,
    account_id: int,
    *,
    client_id: str,
    name: str,
    os_type: str | None,
    status: str,
    auto_approve: bool,
    now: datetime,
) -> Node:
    """Make a node before its agent has called, or change it. Its agent gets the token.

    Raises Forbidden when another account has that id, NotFound for an unknown account.
    """
    account = accounts.get_account(session, account_id)
    node = session.scalar(sa.select(Node).where(Node.client_id == client_id))
    if node is not None and node.account_id != account.id:
        raise Forbidden("This client id belongs to another account.")
    if node is None:
        node = Node(
            client_id=client_id, account_id=account.id, name="", created_at=now, updated_at=now
        )
        session.add(node)
    node.removed_at = None
    session.flush()
    # Whether it is offline follows from its beats; to ask for that changes nothing.
    wanted = None if status == WantedStatus.OFFLINE else status
    nodes.edit_node(
        session, caller, node, name=name, os_type=os_type, wanted_status=wanted, now=now
    )
    accounts.become_provider(session, account, now=now, auto_approve=auto_approve)
    return node


def _client_id(text: str | None) -> str:
    if text is None:
        return new_client_id()
    found = parse_client_id(text)
    if found is None:
        raise InvalidInput("A client id has 32 hex digits.", field="client_id")
    return found


def _is_own_return(session: Session, token: EnrolmentToken, client_id: str | None) -> bool:
    """Whether the machine that used this token last comes back with it: that costs nothing."""
    if token.node_id is None or client_id is None:
        return False
    node = session.get(Node, token.node_id)
    return node is not None and node.client_id == parse_client_id(client_id)


def _use_up(session: Session, token: EnrolmentToken) -> None:
    used = session.execute(
        sa.update(EnrolmentToken)
        .where(EnrolmentToken.id == token.id, EnrolmentToken.uses_left > 0)
        .values(uses_left=EnrolmentToken.uses_left - 1)
    )
    if used.rowcount != 1:  # type: ignore[attr-defined]
        raise Unauthenticated("This enrolment token is used up.")
