"""The token path: a run's answer flows from the worker to its reader as numbered events.

Worker side: one `StreamWriter` per process. Web side: one `StreamHub` per process, which
hands out a `Subscription` per reader. Redis Streams hold the truth (`weft:run:{run_id}`,
entry ids `0-<last number>`), and the same events are published to the web process that
waits for them, so a token costs one publish and no read.

A new run:   with hub.subscribe(run_id, replay=False) as events: ring the queue; read.
Coming back: with hub.subscribe(run_id, after=last_event_id) as events: read.
"""

from __future__ import annotations

from app.core.stream.control import CONTROL_CHANNEL, ControlListener, send_control
from app.core.stream.events import (
    END,
    LOST,
    REASONING,
    STEP,
    TEXT,
    TOOLS,
    Event,
    partial_text,
    read_events,
    stream_key,
)
from app.core.stream.hub import StreamHub, Subscription
from app.core.stream.unwritten import end_unwritten
from app.core.stream.writer import StreamWriter

__all__ = [
    "CONTROL_CHANNEL",
    "END",
    "LOST",
    "REASONING",
    "STEP",
    "TEXT",
    "TOOLS",
    "ControlListener",
    "Event",
    "StreamHub",
    "StreamWriter",
    "Subscription",
    "end_unwritten",
    "partial_text",
    "read_events",
    "send_control",
    "stream_key",
]
