"""Runs as a request lives with them: start one, wait for its first event, stream, let go.

No database session is held while tokens flow. An error before the first event is raised,
so that it becomes an HTTP status; afterwards it is the run's last event.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import redis
from flask import Flask, Response, current_app, request

from app.core.clock import utc_now
from app.core.domain.accounts import Identity
from app.core.domain.errors import (
    DomainError,
    EngineError,
    EngineOverloaded,
    EngineRejected,
    NoCapacity,
    PromptTooLong,
    Unauthenticated,
    Unavailable,
)
from app.core.domain.runs import RunRequest, RunState
from app.core.queue import RunQueue
from app.core.services import runs
from app.core.services.runs import Availability, RunLimits
from app.core.stream import (
    END,
    LOST,
    TEXT,
    Event,
    StreamHub,
    Subscription,
    end_unwritten,
    send_control,
)
from app.extensions import db
from app.web.auth import IdentityCache
from app.web.context import redis_client, settings
from app.web.intake import Also, Intake
from app.web.sse import client_line, sse_response
from app.web.transaction import release

log = logging.getLogger(__name__)

# How soon a reader that left, or lost its right, is noticed while nothing flows.
LOOK_SECONDS = 0.4
# A silent run is looked up in the database: its last event may have been lost with Redis.
DATABASE_LOOK_SECONDS = 5.0


class LiveRuns:
    """One per web process: the hub that hears events, the bell, and the runs being read."""

    def __init__(
        self,
        redis_url: str,
        store: redis.Redis,
        identities: IdentityCache,
        timeout_seconds: float,
    ) -> None:
        self._redis_url = redis_url
        self._identities = identities
        self._hub: StreamHub | None = None
        self.queue = RunQueue(store)
        self.intake = Intake(self.queue, timeout_seconds)
        self.availability = Availability()
        self._reading: set[LiveRun] = set()

    @property
    def hub(self) -> StreamHub:
        """The hub, started at its first use: after the fork."""
        if self._hub is None:
            self._hub = StreamHub(self._redis_url)
            self._hub.on_control(self._on_control)
            self._hub.start()
            self._hub.wait_ready(2.0)
        return self._hub

    def add(self, run: LiveRun) -> None:
        """A run has a reader here."""
        self._reading.add(run)

    def remove(self, run: LiveRun) -> None:
        """Its reader is done."""
        self._reading.discard(run)

    def close(self) -> None:
        """Stop listening."""
        if self._hub is not None:
            self._hub.close()

    def _on_control(self, message: dict[str, Any]) -> None:
        if message.get("type") != "revoked":
            return
        self._identities.clear()
        ended = message.get("credential_ids")
        for run in list(self._reading):
            if run.caller.account_id == message.get("account_id") and (
                ended is None or run.caller.credential_id in ended
            ):
                run.revoke()


class LiveRun:
    """One reader of one run. Iterate `events`, and close it whatever happens."""

    def __init__(
        self, live: LiveRuns, caller: Identity, uid: str, run_id: int, reader: Subscription,
        *, is_attached: bool,
    ) -> None:  # fmt: skip
        self.caller = caller
        self.uid = uid
        self.run_id = run_id
        self._live = live
        self._reader = reader
        self._is_attached = is_attached
        # The plain socket below gevent's: gevent's own would wait instead of peeking.
        connection = request.environ.get("gunicorn.socket")
        self._socket: socket.socket | None = getattr(connection, "_sock", connection)
        self._app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        self._redis = redis_client()
        self._waiting: Event | None = None
        self._send_text: Callable[[str], bool] | None = None
        self._sent_characters = 0
        self._is_lossy = False
        self._is_over = False
        self._is_revoked = False
        live.add(self)

    def wait_first(self) -> None:
        """Wait until something has been answered. Raises the run's error if that comes first."""
        event = self._next()
        if event is None:
            self.close()
            raise Unauthenticated("Could not validate credentials")
        if event.is_end and event.value["state"] != RunState.SUCCEEDED:
            self.close()
            raise error_of_end(event.value)
        self._waiting = event

    def stream(
        self,
        frames: Callable[[Iterator[Event]], Generator[bytes, None, None]],
        text_frame: Callable[[str], bytes],
        *,
        status: int = 200,
    ) -> Response:
        """The answer as server-sent events: `frames` of the events.

        `text_frame` gives the frame that `frames` would give for a piece of text: most of
        those are sent as soon as they are heard, past the request's greenlet.
        """
        line = client_line()
        if line is None:
            return sse_response(frames(self.events()), status=status)
        send = line.send
        self._send_text = lambda text: send(text_frame(text))
        return sse_response(line.carry(frames(self.events())), status=status)

    def events(self) -> Iterator[Event]:
        """The events in order; the last is an `end`. Ends early when the reader is gone."""
        try:
            while True:
                event = self._waiting or self._next()
                self._waiting = None
                if event is None:
                    return
                yield from self._repaired(event)
                if event.is_end:
                    return
        finally:
            self.close()

    def poll(self, timeout: float) -> Event | None:
        """The next event, or None when there is none within `timeout` seconds."""
        event = self._reader.get(timeout)
        if event is not None and event.is_end:
            self._is_over = True
        return event

    def revoke(self) -> None:
        """End this reading: the credential it began with opens nothing any more."""
        self._is_revoked = True
        self._reader.close()

    def close(self) -> None:
        """Stop reading; an attached run that is not over is cancelled."""
        if self not in self._live._reading:
            return
        self._live.remove(self)
        self._reader.close()
        if self._is_attached and not self._is_over:
            cancel(self._app, self._redis, self.run_id, self.uid)

    def _next(self) -> Event | None:
        """The next event; None when the reader left or lost its right."""
        silent_since = time.monotonic()
        take_text = self._take_text if self._send_text is not None else None
        while True:
            event = self._reader.get(LOOK_SECONDS, take_text)
            silent_since = max(silent_since, self._reader.heard_at)
            if event is None and (self._is_revoked or self._reader_left()):
                return None
            if event is None and time.monotonic() - silent_since > DATABASE_LOOK_SECONDS:
                silent_since = time.monotonic()
                event = self._end_from_database()
            if event is not None:
                if event.is_end:
                    self._is_over = True
                return event

    def _take_text(self, text: str) -> bool:
        """In the listener: send a piece that is next. False leaves it to `events`."""
        send = self._send_text
        if send is None or self._is_lossy or not send(text):
            return False
        self._sent_characters += len(text)
        return True

    def _repaired(self, event: Event) -> Iterator[Event]:
        """The event, and where pieces were lost, the rest of the text at the end."""
        if event.kind == LOST:
            self._is_lossy = True
            return
        if event.is_end and self._is_lossy:
            text = self._stored_text()[self._sent_characters :]
            if text:
                yield Event(event.first, event.first, TEXT, text)
        if event.kind == TEXT:
            if self._is_lossy:
                return
            self._sent_characters += len(event.value)
        yield event

    def _reader_left(self) -> bool:
        """Whether the caller closed the connection: no chunk has to be written to find out."""
        if self._socket is None or not self._is_attached:
            return False
        try:
            return self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _stored_text(self) -> str:
        with self._app.app_context():
            return runs.get_run_by_id(db.session(), self.run_id).answer_text or ""

    def _end_from_database(self) -> Event | None:
        with self._app.app_context():
            run = runs.get_run_by_id(db.session(), self.run_id)
            if not RunState(run.state).is_final:
                return None
            usage = {"input_tokens": run.input_tokens, "output_tokens": run.output_tokens}
            value = {
                "state": run.state, "finish_reason": run.finish_reason,
                "error_code": run.error_code, "error": run.error, "usage": usage,
            }  # fmt: skip
            self._is_lossy = True
            return Event(self._reader.last_seen + 1, self._reader.last_seen + 1, END, value)


def install_live(app: Flask) -> None:
    """Give the app its live runs; nothing connects before the first run."""
    chosen = app.extensions["weft_settings"]
    app.extensions["weft_live"] = LiveRuns(
        chosen.redis_url, app.extensions["weft_redis"], app.extensions["weft_identities"],
        chosen.run_timeout_seconds,
    )  # fmt: skip


def live_runs() -> LiveRuns:
    """This process's live runs."""
    found: LiveRuns = current_app.extensions["weft_live"]
    return found


def run_limits() -> RunLimits:
    """How long runs may take and how many may wait."""
    chosen = settings()
    return RunLimits(
        chosen.run_timeout_seconds, chosen.queue_limit, chosen.offline_after_seconds
    )


def start_run(caller: Identity, wanted: RunRequest, *, door: str, is_attached: bool) -> LiveRun:
    """Accept a run, ring for it and read it. Raises what `submit_run` raises."""
    return start_run_with(caller, wanted, None, door=door, is_attached=is_attached)[0]


def start_run_with(
    caller: Identity, wanted: RunRequest, also: Also | None, *, door: str, is_attached: bool
) -> tuple[LiveRun, Any]:
    """The same; `also(connection, run id)` writes more with it, its result comes second."""
    live, limits, now = live_runs(), run_limits(), utc_now()
    row = runs.new_run(
        db.session, caller, wanted, door=door, limits=limits,
        availability=live.availability, now=now, reply_to=live.hub.channel,
        is_attached=is_attached,
    )  # fmt: skip
    release()  # or whoever writes for several might wait for a connection that we hold
    reader = live.hub.subscribe(row["uid"], replay=False)
    try:
        run_id, result = live.intake.accept(db.engine, row, also)
    except BaseException:
        reader.close()
        raise
    run = LiveRun(live, caller, row["uid"], run_id, reader, is_attached=is_attached)
    return run, result


def follow(caller: Identity, uid: str, run_id: int, *, after: int = 0) -> LiveRun:
    """Read a run from event `after` on, without any say in its fate."""
    live = live_runs()
    reader = live.hub.subscribe(uid, after=after)
    return LiveRun(live, caller, uid, run_id, reader, is_attached=False)


def cancel(app: Flask, store: redis.Redis, run_id: int, uid: str) -> None:
    """Cancel a run: at once when it waits, by word to its worker when it runs."""
    with app.app_context():
        session = db.session()
        state, ended = runs.request_cancel(session, run_id, now=utc_now())
        session.commit()
    try:
        if ended is not None:
            end_unwritten(store, uid, ended.as_event())
        elif state is RunState.RUNNING:
            send_control(store, {"type": "cancel", "run_id": uid})
    except (redis.RedisError, OSError):
        log.warning("run %s: its worker or readers learn from the database", uid)


def error_of_end(value: dict[str, Any]) -> DomainError:
    """The error that a failed run's end tells of."""
    message = value.get("error") or "The run failed."
    code = value.get("error_code") or "engine_error"
    if code == "no_capacity":
        return NoCapacity(message, retry_after_seconds=15)
    if code == "context_length_exceeded":
        return PromptTooLong(message)
    if code == "engine_rejected":
        return EngineRejected(message)
    if code == "engine_overloaded":
        return EngineOverloaded(message, retry_after_seconds=value.get("retry_after") or 15)
    if code == "deadline_exceeded":
        return Unavailable(message, retry_after_seconds=15)
    if value.get("state") == RunState.CANCELLED:
        return Unavailable("The run was cancelled.")
    return EngineError(message)
