"""The nodes an account may see, and how they are right now."""

from __future__ import annotations

from flask import request, url_for
from flask.typing import ResponseReturnValue

from app.blueprints.dashboard.pages import blueprint, page_or_part
from app.blueprints.dashboard.presenters import node_row
from app.core.clock import utc_now
from app.core.services import fleet
from app.web.auth import current_identity
from app.web.context import settings
from app.web.transaction import reading

PAGE_SIZE = 25


@blueprint.get("/nodes")
def show_nodes() -> ResponseReturnValue:
    """One's own nodes; an admin sees everybody's too."""
    identity = current_identity()
    sees_all = identity.is_admin and request.args.get("whose") != "mine"
    number = max(1, request.args.get("page", 1, type=int))
    nodes, total = fleet.list_nodes(
        reading(), account_id=None if sees_all else identity.account_id, now=utc_now(),
        offline_after_seconds=settings().offline_after_seconds,
        limit=PAGE_SIZE, offset=(number - 1) * PAGE_SIZE,
    )  # fmt: skip
    whose = None if sees_all or not identity.is_admin else "mine"

    def link(page_number: int) -> str:
        return url_for("dashboard.show_nodes", whose=whose, page=page_number)

    page = {
        "number": number, "size": PAGE_SIZE, "total": total, "here": link(number),
        "prev": link(number - 1) if number > 1 else None,
        "next": link(number + 1) if number * PAGE_SIZE < total else None,
    }  # fmt: skip
    filters = [
        ("The network", url_for("dashboard.show_nodes"), sees_all, None),
        ("Mine", url_for("dashboard.show_nodes", whose="mine"), not sees_all, None),
    ]
    return page_or_part(
        "nodes", "_nodes", nodes=[node_row(node) for node in nodes], page=page,
        filters=filters if identity.is_admin else [],
    )  # fmt: skip
