"""Slow rounds over the fleet: grant points, forget old beats, drop what fell silent for good."""

from __future__ import annotations

import logging

import gevent

from app.core.clock import utc_now
from app.core.database import unit_of_work
from app.core.services import beat_store, nodes, points
from worker import tasks

log = logging.getLogger(__name__)

NODES_AT_ONCE = 100
SILENT_DAYS = 30


def settle_points() -> None:
    """Grant approved providers the days that are over."""
    with unit_of_work(tasks.context().sessions) as session:
        given = points.settle_points(session, now=utc_now())
    if given:
        log.info("granted %.4f points", given / points.E4)


def expire_beats() -> None:
    """Delete raw beats older than BEATS_KEPT_DAYS, a few nodes at a time."""
    ours = tasks.context()
    after_id = 0
    while True:
        with unit_of_work(ours.sessions) as session:
            ids = nodes.list_ids(session, after_id=after_id, limit=NODES_AT_ONCE)
            beat_store.expire_beats(
                session, now=utc_now(), kept_days=ours.settings.beats_kept_days, node_ids=ids
            )
        if not ids:
            return
        after_id = ids[-1]
        gevent.sleep(0)


def drop_silent_nodes() -> None:
    """Remove nodes that can serve nothing and have not been heard of for a month."""
    with unit_of_work(tasks.context().sessions) as session:
        dropped = nodes.drop_silent(session, now=utc_now(), days=SILENT_DAYS)
    if dropped:
        log.info("dropped %d nodes that fell silent", dropped)
