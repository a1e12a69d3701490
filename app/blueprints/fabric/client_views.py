"""fabric: a user's nodes."""

from __future__ import annotations

from flask import Response

from app.blueprints.fabric import answers, schemas, translate
from app.blueprints.fabric.answers import Envelope
from app.blueprints.fabric.api import api
from app.blueprints.fabric.guard import account_of
from app.blueprints.fabric.translate import envelope
from app.core.clock import utc_now
from app.core.domain.errors import NotFound
from app.core.services import enrolment, monitoring, node_reports, nodes
from app.core.services.nodes import NodeFilter, NodeView
from app.web.auth import current_identity
from app.web.context import redis_client, settings
from app.web.transaction import reading, unit_of_work


@api.route(
    "POST",
    "/api/user/insert_client",
    body=schemas.InsertClientBody,
    answer=Envelope[list[answers.ClientDevice]],
)
def insert_client(body: schemas.InsertClientBody) -> Response:
    """Create a node of the user, or change it. The list in the answer is always empty."""
    account_id = account_of(body.user_id)
    with unit_of_work() as session:
        enrolment.announce_node(
            session, current_identity(), account_id, client_id=body.client_id, name=body.name,
            os_type=body.os_type, status=body.client_status, now=utc_now(),
            auto_approve=settings().auto_approve_providers,
        )  # fmt: skip
    return envelope([])


@api.route(
    "GET",
    "/api/user/client_list",
    query=schemas.ClientListQuery,
    answer=Envelope[answers.ClientList],
)
def client_list(query: schemas.ClientListQuery) -> Response:
    """The user's nodes by name; those marked invalid or warning only when asked for."""
    return _client_list(query)


@api.route(
    "GET",
    "/api/user/client_status_list",
    query=schemas.ClientListQuery,
    answer=Envelope[answers.ClientList],
)
def client_status_list(query: schemas.ClientListQuery) -> Response:
    """Another name of client_list."""
    return _client_list(query)


def _client_list(query: schemas.ClientListQuery) -> Response:
    wanted = NodeFilter(
        account_id=account_of(query.user_id),
        client_id=query.client_id,
        status=query.status,
        name=query.name,
        valid_status=query.valid_status or "valid",
    )
    now = utc_now()
    found, total = nodes.list_nodes(
        reading(), wanted, now=now, offline_after_seconds=settings().offline_after_seconds,
        page=query.page, page_size=query.page_size,
    )  # fmt: skip
    ids = [node.id for node in found]
    health = monitoring.health_of(reading(), found, now=now)
    live = node_reports.list_live(redis_client(), ids)
    devices = [
        translate.client_device(node, live.get(node.id), health.get(node.id, 0.0))
        for node in found
    ]
    return envelope(answers.ClientList(total=total, devices=devices))


@api.route(
    "GET",
    "/api/user/client_device_detail",
    query=schemas.ClientQuery,
    answer=Envelope[answers.ClientDetail],
)
def client_device_detail(query: schemas.ClientQuery) -> Response:
    """One node and what its devices measured last."""
    node = _find(account_of(query.user_id), query.client_id)
    health = monitoring.health_of(reading(), [node], now=utc_now())
    live = node_reports.list_live(redis_client(), [node.id])
    return envelope(translate.client_detail(node, live.get(node.id), health.get(node.id, 0.0)))


@api.route(
    "POST",
    "/api/user/edit_client_info",
    body=schemas.EditClientBody,
    answer=Envelope[None],
)
def edit_client_info(body: schemas.EditClientBody) -> Response:
    """Change a node: name, system, in service or not; an admin also whether it is valid."""
    account_id = account_of(body.user_id)
    caller = current_identity()
    with unit_of_work() as session:
        node = nodes.get_node(session, caller, body.client_id)
        if node.account_id != account_id:
            raise NotFound("Client not found.")
        nodes.edit_node(
            session, caller, node, name=body.name, os_type=body.os_type,
            wanted_status=body.client_status, valid_status=body.valid_status, now=utc_now(),
        )  # fmt: skip
    return envelope(None)


@api.route(
    "GET",
    "/api/user/client_stat",
    query=schemas.UserQuery,
    answer=Envelope[answers.ClientStat],
)
def client_stat(query: schemas.UserQuery) -> Response:
    """The user's nodes in figures."""
    stat = monitoring.fleet_stat(
        reading(), account_of(query.user_id), now=utc_now(),
        offline_after_seconds=settings().offline_after_seconds,
    )  # fmt: skip
    return envelope(translate.client_stat(stat))


def _find(account_id: int, client_id: str) -> NodeView:
    found, _ = nodes.list_nodes(
        reading(), NodeFilter(account_id=account_id, client_id=client_id), now=utc_now(),
        offline_after_seconds=settings().offline_after_seconds,
    )  # fmt: skip
    if not found:
        raise NotFound("Client not found.")
    return found[0]
