"""fabric: how a user's nodes have been, and what they earned."""

from __future__ import annotations

from flask import Response

from app.blueprints.fabric import answers, schemas, translate
from app.blueprints.fabric.answers import Envelope
from app.blueprints.fabric.api import api
from app.blueprints.fabric.guard import account_of
from app.blueprints.fabric.translate import envelope
from app.core.clock import utc_now
from app.core.domain.errors import NotFound
from app.core.services import monitoring, node_reports, nodes, points
from app.web.auth import current_identity
from app.web.context import redis_client
from app.web.transaction import reading


@api.route(
    "GET",
    "/api/user/client_monitor",
    query=schemas.HistoryQuery,
    answer=Envelope[list[answers.ClientMonitor]],
)
def client_monitor(query: schemas.HistoryQuery) -> Response:
    """A row for each node and day, newest first."""
    span = translate.span_of(query.start_date, query.end_date)
    mine = monitoring.own_nodes(reading(), account_of(query.user_id), client_id=query.client_id)
    rows, is_cut = monitoring.list_days(reading(), mine, span, now=utc_now())
    return _cut(envelope([translate.client_monitor(row) for row in rows]), is_cut)


@api.route(
    "GET",
    "/api/user/client_health",
    query=schemas.HistoryQuery,
    answer=Envelope[list[answers.ClientHeartbeat]],
)
def client_health(query: schemas.HistoryQuery) -> Response:
    """The counted heartbeats, newest first."""
    span = translate.span_of(query.start_date, query.end_date)
    mine = monitoring.own_nodes(reading(), account_of(query.user_id), client_id=query.client_id)
    rows, is_cut = monitoring.list_beats(reading(), mine, span, now=utc_now())
    return _cut(envelope([translate.client_heartbeat(row) for row in rows]), is_cut)


def _cut(response: Response, is_cut: bool) -> Response:
    """Say so when older rows were left out."""
    if is_cut:
        response.headers["X-Truncated"] = "true"
    return response


@api.route(
    "GET",
    "/api/user/model_download_progress",
    query=schemas.ProgressQuery,
    answer=Envelope[answers.DownloadProgress],
)
def model_download_progress(query: schemas.ProgressQuery) -> Response:
    """How far a node's download has got; of a node that nobody knows, nothing."""
    node = nodes.find_node(reading(), query.client_id)
    if node is None:
        return envelope(translate.download_progress(query.client_id, None))
    if not current_identity().may_act_for(node.account_id):
        raise NotFound("Client not found.")
    found = node_reports.list_downloads(redis_client(), node.id)
    return envelope(translate.download_progress(node.client_id, found[0] if found else None))


@api.route(
    "GET", "/api/user/points", query=schemas.PointsQuery, answer=Envelope[answers.PointsList]
)
def list_points(query: schemas.PointsQuery) -> Response:
    """What the user's devices earned, a row for each device and day."""
    wanted = points.PointsFilter(
        account_id=account_of(query.user_id),
        client_id=query.client_id,
        client_name=query.client_name.strip() if query.client_name else None,
        device_id=query.device_id,
        start=translate.day_of(query.start_date, "start_date"),
        end=translate.day_of(query.end_date, "end_date"),
    )
    page = points.list_points(reading(), wanted, page=query.page, page_size=query.page_size)
    return envelope(translate.points_list(page, query.page, query.page_size))
