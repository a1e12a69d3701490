"""Who is the agent that calls? A node token says it, and nothing else opens these doors."""

from __future__ import annotations

from flask import g, request

from app.core.domain.errors import Unauthenticated
from app.core.services import nodes
from app.core.services.nodes import NodeRow
from app.web.auth import refuse_two_carriers
from app.web.transaction import reading

ENROL_ENDPOINT = "agent.enrol_post"


def guard() -> None:
    """Close every route but enrolment, which takes a token of another kind."""
    if request.method == "OPTIONS":
        return
    refuse_two_carriers()
    if request.endpoint == ENROL_ENDPOINT:
        return
    g.node = _identify()


def current_node() -> NodeRow:
    """The node that calls."""
    found: NodeRow = g.node
    return found


def bearer_secret() -> str:
    """The token in the request. Raises Unauthenticated."""
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Unauthenticated("Send `Authorization: Bearer <token>`.")
    return secret.strip()


def _identify() -> NodeRow:
    node = nodes.identify_node(reading(), bearer_secret())
    if node is None:
        raise Unauthenticated("This node token is not known (any more).")
    return node
