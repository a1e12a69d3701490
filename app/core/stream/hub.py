"""The web process's end of the token path: one subscription to Redis, many readers.

The listening greenlet only sorts events into the readers' queues. Each reader keeps its
own place: it drops what it has had, and where numbers are missing it reads the stream.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

from redis.exceptions import RedisError

from app.core.stream.control import (
    CONTROL_CHANNEL,
    ControlCallback,
    deliver_control,
    send_control,
)
from app.core.stream.events import LOST, SYNC, TEXT, Event, read_events
from app.core.stream.wire import Listener, quick_client

CLOSED: Final = "closed"

QUIET_SECONDS: Final = 15.0
"""A reader that hears nothing for so long looks into the stream by itself."""

FIRST_LOOK_SECONDS: Final = 2.0
"""The same for a reader that came later, until its run's writer has answered it."""

RETRY_SECONDS: Final = 0.5

log = logging.getLogger(__name__)


class Subscription:
    """One reader of one run. Use it in one thread or greenlet, and close it.

    Iterate for all events until the end; or `get` with a time limit, to look in between
    whether the caller is still there.
    """

    def __init__(self, hub: StreamHub, run_id: str, *, after: int, replay: bool) -> None:
        self.run_id = run_id
        self._hub = hub
        self._seen = after
        self._heard: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._replayed: deque[Event] = deque()
        self._take_text: Callable[[str], bool] | None = None
        self.heard_at = time.monotonic()
        self._over = False
        self._quiet_seconds = FIRST_LOOK_SECONDS if replay else QUIET_SECONDS
        self._look_at = 0.0 if replay else time.monotonic() + self._quiet_seconds

    @property
    def last_seen(self) -> int:
        """Number of the last piece delivered; where a later reader goes on."""
        return self._seen

    @property
    def is_over(self) -> bool:
        """True after the end was delivered, or the subscription was closed."""
        return self._over

    def get(
        self, timeout: float | None = None, take_text: Callable[[str], bool] | None = None
    ) -> Event | None:
        """The next event in order; None after `timeout` seconds, after the end, when closed.

        Never raises for Redis: while it is away there are simply no events.
        `take_text` is called in the listener with each piece of text that is next in order
        while this waits; what it says True to is delivered, without this reader being woken.
        It must not block, and needs gevent, where listener and reader never run at once.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._over:
            if self._replayed:
                return self._deliver(self._replayed.popleft())
            event = self._wait(deadline, take_text)
            if event is not None:
                ready = self._sort_in(event)
                if ready is not None:
                    return self._deliver(ready)
            elif deadline is not None and time.monotonic() >= deadline:
                return None
        return None

    def __iter__(self) -> Iterator[Event]:
        while (event := self.get()) is not None:
            yield event

    def close(self) -> None:
        """Give up reading; a `get` that waits returns None."""
        self._hub.forget(self)
        self._over = True
        self._heard.put(Event(0, 0, CLOSED, None))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def offer(self, first: int, last: int, kind: str, value: Any) -> None:
        """Called by the hub: an event was published, in whatever order."""
        take = self._take_text
        if take is not None:
            if kind == TEXT and first == self._seen + 1 and take(value):
                self._seen = last
                self.heard_at = time.monotonic()
                self._look_at = self.heard_at + QUIET_SECONDS
                return
            self._take_text = None  # from here on the reader must see everything itself
        self._heard.put(Event(first, last, kind, value))

    def _wait(
        self, deadline: float | None, take_text: Callable[[str], bool] | None
    ) -> Event | None:
        """What was heard next; None when nothing was, after looking if it was time to."""
        with contextlib.suppress(queue.Empty):
            return self._heard.get_nowait()
        until = self._look_at if deadline is None else min(self._look_at, deadline)
        self._take_text = take_text
        try:
            event = self._heard.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            self._take_text = None
            if time.monotonic() >= self._look_at:
                self._look()
            return None
        return event

    def _sort_in(self, event: Event) -> Event | None:
        """The event, if it is the next one; None if it was had, or the stream must be read."""
        self.heard_at = time.monotonic()
        self._look_at = self.heard_at + self._quiet_seconds
        if event.kind in (SYNC, CLOSED):
            if event.kind == SYNC and (event.last == 0 or event.last > self._seen):
                self._look()
            return None
        self._quiet_seconds = QUIET_SECONDS
        if event.last <= self._seen:
            return None
        if event.first <= self._seen + 1:
            return event
        if self._look():
            self._append(event)
        return None

    def _look(self) -> bool:
        """Read what the stream has beyond our place. False when Redis is away."""
        try:
            found = read_events(self._hub.redis, self.run_id, self._position())
        except RedisError as error:
            log.warning("Run %s: can't read its stream now (%s)", self.run_id, error)
            self._look_at = time.monotonic() + RETRY_SECONDS
            return False
        self._look_at = time.monotonic() + self._quiet_seconds
        for event in found:
            self._append(event)
        if not found and self._quiet_seconds == FIRST_LOOK_SECONDS:
            self._hub.announce(self.run_id)
        return True

    def _position(self) -> int:
        return self._replayed[-1].last if self._replayed else self._seen

    def _append(self, event: Event) -> None:
        position = self._position()
        if event.last <= position:
            return
        if event.first > position + 1:
            log.warning("Run %s: %d to %d are lost", self.run_id, position + 1, event.first - 1)
            self._replayed.append(Event(position + 1, event.first - 1, LOST, None))
        self._replayed.append(event)

    def _deliver(self, event: Event) -> Event:
        self._seen = event.last
        if event.is_end:
            self._over = True
        return event


class StreamHub:
    """One per web process, started after the fork."""

    def __init__(self, redis_url: str, *, hub_id: str | None = None) -> None:
        self.channel = f"weft:web:{hub_id or uuid.uuid4().hex}"
        self.redis = quick_client(redis_url)
        self._readers: dict[str, tuple[Subscription, ...]] = {}
        self._lock = threading.Lock()
        self._callbacks: list[ControlCallback] = [self._on_look]
        self._listener = Listener(
            redis_url, [self.channel, CONTROL_CHANNEL], self._hear, self._subscribed
        )

    def start(self) -> None:
        """Listen in the background, reconnecting for as long as it takes."""
        self._listener.start()

    def wait_ready(self, timeout: float) -> bool:
        """True when Redis has confirmed the subscription."""
        return self._listener.wait_subscribed(timeout)

    def close(self) -> None:
        """Stop listening; every reader's `get` returns None from now on."""
        self._listener.close()
        with self._lock:
            readers = [reader for group in self._readers.values() for reader in group]
        for reader in readers:
            reader.close()
        self.redis.close()

    def subscribe(self, run_id: str, *, after: int = 0, replay: bool = True) -> Subscription:
        """A reader of a run's events after number `after`.

        With `replay=False` nothing is read from the stream at first, which saves a round
        trip: right for a run that this process is about to ring for, and only then
        (subscribe first, then ring, with `reply_to=hub.channel` in the run).
        """
        reader = Subscription(self, run_id, after=after, replay=replay)
        with self._lock:
            self._readers[run_id] = (*self._readers.get(run_id, ()), reader)
        if replay:
            self.announce(run_id)
        return reader

    def on_control(self, callback: ControlCallback) -> None:
        """Call this with each control message. It runs in the listener: it must not block."""
        self._callbacks.append(callback)

    @property
    def reader_count(self) -> int:
        """How many readers there are now."""
        return sum(map(len, self._readers.values()))

    def announce(self, run_id: str) -> None:
        """Ask whoever writes this run to publish it here too; readers look themselves if not."""
        try:
            message = {"type": "read", "run_id": run_id, "channel": self.channel}
            send_control(self.redis, message)
        except RedisError as error:
            log.warning("Run %s: can't ask its writer to publish here (%s)", run_id, error)

    def forget(self, reader: Subscription) -> None:
        """Called by a reader that closes."""
        with self._lock:
            rest = tuple(r for r in self._readers.get(reader.run_id, ()) if r is not reader)
            if rest:
                self._readers[reader.run_id] = rest
            else:
                self._readers.pop(reader.run_id, None)

    def _hear(self, channel: bytes, payload: bytes) -> None:
        if channel == CONTROL_CHANNEL.encode():
            deliver_control(self._callbacks, payload)
            return
        for run_id, first, last, kind, value in json.loads(payload):
            for reader in self._readers.get(run_id, ()):
                reader.offer(first, last, kind, value)

    def _on_look(self, message: dict[str, Any]) -> None:
        """A run's stream has what no writer will publish: its readers read it."""
        if message.get("type") == "look":
            for reader in self._readers.get(str(message.get("run_id")), ()):
                reader.offer(0, 0, SYNC, None)

    def _subscribed(self) -> None:
        """Whatever was published while we were away lies in the streams."""
        with self._lock:
            readers = [reader for group in self._readers.values() for reader in group]
        for reader in readers:
            reader.offer(0, 0, SYNC, None)
