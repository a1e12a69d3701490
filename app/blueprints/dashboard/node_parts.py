"""The parts of a node's page that have their own pace: its history, and its log."""

from __future__ import annotations

from typing import Any

import redis
from flask import request, url_for
from flask.typing import ResponseReturnValue

from app.blueprints.dashboard.node_presenters import log_line
from app.blueprints.dashboard.pages import blueprint, page
from app.core.clock import utc_now
from app.core.services import inventory, node_history, node_reports, nodes
from app.web.auth import current_identity
from app.web.charts import MAX_SERIES, Series
from app.web.context import redis_client
from app.web.transaction import reading

LOG_LINES_SHOWN = 300
DEFAULT_SPAN = "24h"
_SPAN_TEXTS = {"1h": "1 hour", "24h": "24 hours", "7d": "7 days", "30d": "30 days"}
_MEASURED = (
    ("GPU usage", "usage", "%", 100.0), ("GPU memory", "memory", "%", 100.0),
    ("GPU temperature", "temperature", "°C", None), ("GPU power", "power", "W", None),
)  # fmt: skip
_LABELS = {"1h": "%H:%M", "24h": "%H:%M", "7d": "%d %b %H:%M", "30d": "%d %b"}


@blueprint.get("/nodes/<client_id>/charts")
def show_node_charts(client_id: str) -> ResponseReturnValue:
    """The node's history over one span."""
    node, span = _own(client_id), span_asked()
    return page(
        "_node_charts", history=history_charts(node.id, span),
        gpu_charts=device_charts(node.id, span, gpu_names(node.id)),
        spans=span_links(node.client_id, span),
    )  # fmt: skip


@blueprint.get("/nodes/<client_id>/log")
def show_node_log(client_id: str) -> ResponseReturnValue:
    """The last lines of the node's log."""
    return page("_node_log", log=log_lines(_own(client_id).id))


def _own(client_id: str) -> nodes.NodeRow:
    return nodes.get_node(reading(), current_identity(), client_id)


def span_asked() -> str:
    """The span that the address names, a day without one."""
    span = request.args.get("span", DEFAULT_SPAN)
    return span if span in node_history.SPANS else DEFAULT_SPAN


def span_links(client_id: str, span: str) -> dict[str, Any]:
    """Links to all spans, and the address of the one that is shown."""
    return {
        "here": url_for("dashboard.show_node_charts", client_id=client_id, span=span),
        "links": [
            {
                "text": _SPAN_TEXTS[one],
                "href": url_for("dashboard.show_node", client_id=client_id, span=one),
                "part": url_for("dashboard.show_node_charts", client_id=client_id, span=one),
                "is_current": one == span,
            }
            for one in node_history.SPANS
        ],
    }


def history_charts(node_id: int, span: str) -> dict[str, Any]:
    """Labels and series of the charts; without a single beat there is nothing to draw."""
    points = node_history.node_history(reading(), node_id, span, now=utc_now())
    return {
        "is_empty": all(one.received is None and one.cpu is None for one in points),
        "labels": [one.at.strftime(_LABELS[span]) for one in points],
        "usage": [
            Series("CPU", [one.cpu for one in points]),
            Series("Memory", [one.memory for one in points]),
            Series("Disk", [one.disk for one in points]),
        ],
        "network": [
            Series("Received", [one.received for one in points]),
            Series("Sent", [one.sent for one in points]),
        ],
    }


def gpu_names(node_id: int) -> dict[int, str]:
    """The names of a node's GPUs, by index."""
    devices = inventory.list_devices(reading(), [node_id]).get(node_id, [])
    return {one.index: one.name for one in devices if one.kind != "cpu"}


def device_charts(node_id: int, span: str, names: dict[int, str]) -> list[dict[str, Any]]:
    """Charts of what the GPUs measured; `names` are those of the node's GPUs by index.

    One chart compares at most as many GPUs as there are colours; more get a set each.
    """
    found = [
        one
        for one in node_history.device_history(reading(), node_id, span, now=utc_now())
        if one.index in names
    ]
    sets = [found[at : at + MAX_SERIES] for at in range(0, len(found), MAX_SERIES)]
    return [
        {
            "title": _of(title, devices, is_part=len(sets) > 1),
            "unit": unit,
            "ceiling": ceiling,
            "series": [
                Series(f"{one.index} · {names[one.index]}", getattr(one, what))
                for one in devices
            ],
        }
        for devices in sets
        for title, what, unit, ceiling in _MEASURED
        if any(value is not None for one in devices for value in getattr(one, what))
    ]


def _of(title: str, devices: list[node_history.DeviceHistory], *, is_part: bool) -> str:
    return f"{title}, {devices[0].index} to {devices[-1].index}" if is_part else title


def log_lines(node_id: int) -> list[dict[str, Any]]:
    """The newest lines, oldest first; none while Redis is away."""
    try:
        found = node_reports.list_logs(redis_client(), node_id, limit=LOG_LINES_SHOWN)
    except redis.RedisError:
        return []
    return [log_line(line) for line in found]
