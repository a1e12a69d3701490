"""Which machines came in with an enrolment token, for whoever waits for them."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.errors import NotFound
from app.core.models import EnrolmentToken, Node

MOST = 20


def joined_with(session: Session, account_id: int, token_id: int) -> list[str]:
    """Client ids of the account's nodes that came since it made the token, oldest first.

    Raises NotFound for a token that is not the account's.
    """
    token = session.get(EnrolmentToken, token_id, populate_existing=True)
    if token is None or token.account_id != account_id:
        raise NotFound("This token is not known.")
    found = session.scalars(
        sa.select(Node.client_id)
        .where(
            Node.account_id == account_id,
            Node.removed_at.is_(None),
            # The machine that used the token last may have been a node before.
            sa.or_(Node.created_at >= token.created_at, Node.id == token.node_id),
        )
        .order_by(Node.id)
        .limit(MOST)
    )
    return list(found)


def is_waiting(session: Session, token_id: int, *, now: datetime) -> bool:
    """Whether more machines may still come with it."""
    token = session.get(EnrolmentToken, token_id)
    return token is not None and token.uses_left > 0 and token.expires_at > now
