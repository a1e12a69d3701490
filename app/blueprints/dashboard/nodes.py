"""Nodes: the list, and each node's own page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import redis
from flask import request, url_for
from flask.typing import ResponseReturnValue

from app.blueprints.dashboard.node_parts import (
    device_charts,
    gpu_names,
    history_charts,
    log_lines,
    span_asked,
    span_links,
)
from app.blueprints.dashboard.node_presenters import VALID_STATUSES, node_page, node_row
from app.blueprints.dashboard.pages import blueprint, page, page_or_part, see_other
from app.blueprints.dashboard.presenters import Question
from app.core.clock import utc_now
from app.core.domain.errors import InvalidInput
from app.core.services import fleet, node_reports, nodes, runs
from app.web.auth import current_identity
from app.web.context import redis_client, settings
from app.web.pages import wants_fragment
from app.web.transaction import reading, unit_of_work

if TYPE_CHECKING:
    from app.core.services.nodes import NodeView

PAGE_SIZE = 25
MAX_PAGE = 100_000
RUNS_SHOWN = 20


@blueprint.get("/nodes")
def show_nodes() -> ResponseReturnValue:
    """One's own nodes; an admin sees everybody's too."""
    identity = current_identity()
    sees_all = identity.is_admin and request.args.get("whose") != "mine"
    number = min(MAX_PAGE, max(1, request.args.get("page", 1, type=int)))
    found, total = nodes.list_nodes(
        reading(),
        nodes.NodeFilter(account_id=None if sees_all else identity.account_id),
        now=utc_now(),
        offline_after_seconds=settings().offline_after_seconds,
        page=number,
        page_size=PAGE_SIZE,
    )
    whose = "mine" if identity.is_admin and not sees_all else None
    return page_or_part(
        "nodes",
        "_nodes",
        nodes=node_rows(found),
        page=_page(number, total, whose),
        filters=_filters(sees_all=sees_all) if identity.is_admin else [],
    )


def node_rows(found: list[NodeView]) -> list[dict[str, object]]:
    """Lines of the list, with what each node measured last."""
    ids = [node.id for node in found]
    live, running = (
        node_reports.list_live(redis_client(), ids),
        fleet.count_running(reading(), ids),
    )
    return [node_row(node, live.get(node.id), running.get(node.id, 0)) for node in found]


def _page(number: int, total: int, whose: str | None) -> dict[str, object]:
    def link(page_number: int) -> str:
        return url_for("dashboard.show_nodes", whose=whose, page=page_number)

    return {
        "number": number,
        "size": PAGE_SIZE,
        "total": total,
        "here": link(number),
        "prev": link(number - 1) if number > 1 else None,
        "next": link(number + 1) if number * PAGE_SIZE < total else None,
    }


def _filters(*, sees_all: bool) -> list[tuple[str, str, bool, None]]:
    return [
        ("The network", url_for("dashboard.show_nodes"), sees_all, None),
        ("Mine", url_for("dashboard.show_nodes", whose="mine"), not sees_all, None),
    ]


@blueprint.get("/nodes/<client_id>")
def show_node(client_id: str) -> ResponseReturnValue:
    """One node: what it has, how it is, what it serves and did."""
    node, store = view_node(client_id), redis_client()
    try:
        downloads = node_reports.list_downloads(store, node.id)
    except redis.RedisError:  # what was reported is not worth an error page
        downloads = []
    shown = node_page(
        node,
        node_reports.list_live(store, [node.id]).get(node.id),
        runs=runs.list_runs(reading(), node_id=node.id, limit=RUNS_SHOWN),
        downloads=downloads,
    )
    if wants_fragment():
        return page("_node", node=shown)
    span = span_asked()
    return page(
        "node", node=shown, valid_statuses=VALID_STATUSES, log=log_lines(node.id),
        history=history_charts(node.id, span),
        gpu_charts=device_charts(node.id, span, gpu_names(node.id)), spans=span_links(node.client_id, span),
    )  # fmt: skip


def view_node(client_id: str) -> NodeView:
    """The caller's own node; an admin's any. Raises NotFound."""
    row = nodes.get_node(reading(), current_identity(), client_id)
    found, _ = nodes.list_nodes(
        reading(),
        nodes.NodeFilter(client_id=row.client_id),
        now=utc_now(),
        offline_after_seconds=settings().offline_after_seconds,
    )
    return found[0]


@blueprint.post("/nodes/<client_id>")
def change_node(client_id: str) -> ResponseReturnValue:
    """Rename a node, or take it out of service and back."""
    identity = current_identity()
    with unit_of_work() as session:
        node = nodes.get_node(session, identity, client_id)
        wanted = request.form.get("status")
        if wanted not in {None, "online", "maintenance"}:
            raise InvalidInput("A node can be online or in maintenance.", field="status")
        nodes.edit_node(
            session, identity, node, name=request.form.get("name"), wanted_status=wanted,
            now=utc_now(),
        )  # fmt: skip
    return see_other("show_node", client_id=client_id)


@blueprint.get("/nodes/<client_id>/remove")
def confirm_remove_node(client_id: str) -> ResponseReturnValue:
    """Ask before a node leaves the network."""
    node = view_node(client_id)
    question = Question(
        title=f"Remove “{node.name}”?",
        text="Its agent is refused from now on and it gets no more runs. "
        "What it earned stays. To come back, it joins again.",
        action=url_for("dashboard.remove_node", client_id=client_id),
        label="Remove the node",
        cancel=url_for("dashboard.show_node", client_id=client_id),
    )
    return page("confirm", question=question, is_fragment=wants_fragment())


@blueprint.post("/nodes/<client_id>/remove")
def remove_node(client_id: str) -> ResponseReturnValue:
    """Take a node out of the network."""
    with unit_of_work() as session:
        node = nodes.get_node(session, current_identity(), client_id)
        nodes.remove_node(session, node, now=utc_now())
    return see_other("show_nodes")
