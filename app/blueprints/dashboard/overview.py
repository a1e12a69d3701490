"""The first room: what the network does for you right now."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from flask import url_for
from flask.typing import ResponseReturnValue

from app.blueprints.dashboard.pages import blueprint, page_or_part
from app.blueprints.dashboard.presenters import Step, run_row
from app.core.clock import utc_now
from app.core.services import credentials, fleet, models, nodes, runs, usage
from app.web.auth import current_identity
from app.web.charts import Series, short_number
from app.web.context import settings
from app.web.transaction import reading

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


@blueprint.get("/")
def show_overview() -> ResponseReturnValue:
    """Tiles, tokens by hour, models and the latest runs."""
    session, now = reading(), utc_now()
    account_id = current_identity().account_id
    hours = usage.list_hours(session, account_id=account_id, until=now)
    latest = runs.list_runs(session, account_id=account_id, limit=6)
    names = fleet.node_names(session, [run.node_id for run in latest])
    offline_after = settings().offline_after_seconds
    return page_or_part(
        "overview", "_overview",
        now=_tiles(session, account_id, hours, now),
        usage={
            "labels": [f"{hour.hour:%H}:00" for hour in hours],
            "series": [
                Series("Output", [hour.output_tokens for hour in hours]),
                Series("Input", [hour.input_tokens for hour in hours]),
            ],
        },
        models=models.list_available(session, now=now, offline_after_seconds=offline_after),
        runs=[run_row(run, names) for run in latest],
        steps=_steps(session, account_id, has_runs=bool(latest)),
    )  # fmt: skip


def _tiles(
    session: Session, account_id: int, hours: list[usage.HourOfUse], now: datetime
) -> dict[str, object]:
    counts = nodes.count_nodes(
        session, now=now, offline_after_seconds=settings().offline_after_seconds
    )
    live, everybody = runs.count_live(session, account_id=account_id), runs.count_live(session)
    today = [hour for hour in hours if hour.hour.date() == now.date()]
    tokens_in, tokens_out = (
        sum(h.input_tokens for h in today),
        sum(h.output_tokens for h in today),
    )
    failed = sum(hour.failed for hour in today)
    return {
        "nodes_online": counts.online,
        "nodes_note": f"of {counts.total} on the network",
        "runs_live": sum(live.values()),
        "runs_note": f"{sum(everybody.values())} on the whole network",
        "tokens_today": tokens_in + tokens_out,
        "tokens_note": f"{short_number(tokens_in)} in, {short_number(tokens_out)} out",
        "tokens_by_hour": [hour.input_tokens + hour.output_tokens for hour in hours],
        "runs_today": sum(hour.runs for hour in today),
        "runs_today_note": f"{failed} failed" if failed else "none failed",
        "runs_by_hour": [hour.runs for hour in hours],
    }


def _steps(session: Session, account_id: int, *, has_runs: bool) -> list[Step]:
    """What a new account can do first; nothing once it has asked something and has a key."""
    has_node = nodes.count_nodes(
        session, account_id=account_id, now=utc_now(),
        offline_after_seconds=settings().offline_after_seconds,
    ).total > 0  # fmt: skip
    has_key = bool(credentials.list_api_keys(session, account_id))
    if has_runs and has_key:
        return []
    return [
        Step("Ask a model something", has_runs, "playground", url_for("dashboard.show_playground"), "Open the playground"),
        Step("Create a key for your programs", has_key, "keys", url_for("dashboard.show_keys"), "Create a key"),
        Step("Share a machine and earn points", has_node, "nodes", url_for("dashboard.show_join"), "Join a machine"),
    ]  # fmt: skip
