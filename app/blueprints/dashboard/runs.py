"""Runs: the list, and each run's own page, live while it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from flask import current_app, request, url_for
from flask.typing import ResponseReturnValue

from app.blueprints.dashboard.pages import blueprint, page_or_part, see_other
from app.blueprints.dashboard.presenters import RUN_FILTERS, run_page, run_row
from app.core.domain.errors import NotFound
from app.core.ids import uid_from_object_id
from app.core.services import fleet, runs
from app.web import live
from app.web.auth import current_identity
from app.web.context import redis_client
from app.web.sse import frame, last_event_id, sse_response
from app.web.transaction import reading, release

PAGE_SIZE = 25
MAX_ID = 2**31 - 1


@blueprint.get("/runs")
def show_runs() -> ResponseReturnValue:
    """The account's runs, newest first."""
    state = request.args.get("state", "")
    state = state if state in RUN_FILTERS else ""
    before = request.args.get("before", type=int)
    before = before if before is not None and 0 < before <= MAX_ID else None
    found = runs.list_runs(
        reading(), account_id=current_identity().account_id, state=state or None,
        before_id=before, limit=PAGE_SIZE + 1,
    )  # fmt: skip
    shown = found[:PAGE_SIZE]
    names = fleet.node_names(reading(), [run.node_id for run in shown])
    return page_or_part(
        "runs", "_runs",
        rows=[run_row(run, names) for run in shown],
        page=_page(state, before, shown[-1].id if len(found) > PAGE_SIZE else None),
        filters=[
            (text, url_for("dashboard.show_runs", state=name or None), name == state, None)
            for name, text in RUN_FILTERS.items()
        ],
    )  # fmt: skip


def _page(state: str, before: int | None, older_than: int | None) -> dict[str, str | None]:
    def link(before_id: int | None) -> str:
        return url_for("dashboard.show_runs", state=state or None, before=before_id)

    return {
        "here": link(before),
        "newest": link(None) if before else None,
        "older": link(older_than) if older_than else None,
    }


@blueprint.get("/runs/<run_id>")
def show_run(run_id: str) -> ResponseReturnValue:
    """One run with everything that is known of it."""
    run = runs.get_run(reading(), current_identity(), _uid(run_id))
    names = fleet.node_names(reading(), [run.node_id])
    part = "_run_side" if request.args.get("part") == "side" else "_run"
    return page_or_part("run", part, run=run_page(run, names))


@blueprint.post("/runs/<run_id>/cancel")
def cancel_run(run_id: str) -> ResponseReturnValue:
    """Stop a run: at once when it waits, within a second when it runs."""
    run = runs.get_run(reading(), current_identity(), _uid(run_id))
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    live.cancel(app, redis_client(), run.id, run.uid)
    return see_other("show_run", run_id=run.uid)


@blueprint.get("/runs/<run_id>/events")
def stream_run_events(run_id: str) -> ResponseReturnValue:
    """The run's events from `Last-Event-ID` on, for its page."""
    identity = current_identity()
    run = runs.get_run(reading(), identity, _uid(run_id))
    after = last_event_id(request.headers.get("Last-Event-ID"))
    reader = live.follow(identity, run.uid, run.id, after=after)
    release()
    return sse_response(event_frames(reader))


def event_frames(reader: live.LiveRun) -> Iterator[bytes]:
    """Events as the dashboard's scripts read them: `{"text": …}`, and the end as it is."""
    for event in reader.events():
        value: Any = event.value if event.is_end else {"text": event.value}
        yield frame(json.dumps(value), number=event.last, event=event.kind)


def _uid(run_id: str) -> str:
    uid = uid_from_object_id(run_id)
    if uid is None:
        raise NotFound("Run not found.")
    return uid
