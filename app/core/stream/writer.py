"""The worker process's end of the token path: one greenlet writes for all runs.

While one round trip is in flight, new pieces queue up; the next round trip carries them
all, merged per run, with one publish per web process. Ids are explicit, so anything may
be sent twice, and after a lost connection the last seconds are.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from app.core.stream.batch import Channels, Entry, RunTrack, failed_reply, merge
from app.core.stream.events import END
from app.core.stream.wire import Backoff, Wire, wire_pool

MOST_UNACKNOWLEDGED_BYTES: Final = 4 * 1024 * 1024
BATCH_BYTES: Final = 1024 * 1024
RESENT_SECONDS: Final = 5.0
MOST_RESENT: Final = 20_000
REPLY_SECONDS: Final = 10.0
PROBE_SECONDS: Final = 1.0

log = logging.getLogger(__name__)


class StreamWriter:
    """One per worker process. `write` and `end` of one run are called by one job only.

    `on_reader_gone(run_id)` is called once when the web process that waits for a run has
    been deaf for `gone_after_seconds`; it runs in the writer and must not block.
    """

    def __init__(
        self,
        redis_url: str,
        *,
        on_reader_gone: Callable[[str], None] | None = None,
        gone_after_seconds: float = 5.0,
        most_unacknowledged_bytes: int = MOST_UNACKNOWLEDGED_BYTES,
    ) -> None:
        self._pool = wire_pool(redis_url)
        self._limit = most_unacknowledged_bytes
        self._runs: dict[str, RunTrack] = {}
        self._pending: deque[Entry | threading.Event] = deque()
        self._sent: deque[tuple[float, Entry]] = deque(maxlen=MOST_RESENT)
        self._channels = Channels(on_reader_gone, gone_after_seconds)
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._wire: Wire | None = None
        self._thread = threading.Thread(target=self._run, name="weft-write", daemon=True)
        self._thread.start()

    def write(self, run_id: str, kind: str, value: Any, *, reply_to: str | None = None) -> int:
        """Queue one piece and give its number (1, 2, …). `kind`: text, reasoning, tools.

        Does not wait for Redis, except when more than 4 MB of this run are not
        acknowledged: then it blocks until Redis has taken some. `reply_to` is the channel
        of the web process that waits, the same in every call.
        """
        return self._put(run_id, kind, value, reply_to)

    def end(self, run_id: str, value: dict[str, Any], *, reply_to: str | None = None) -> int:
        """Queue the last event of a run and give its number; the run's numbers end here."""
        number = self._put(run_id, END, value, reply_to)
        self._runs.pop(run_id, None)
        return number

    def resume(self, run_id: str, *, after: int) -> None:
        """Go on after number `after`: for a run that another worker began (`partial_text`)."""
        self._runs[run_id] = RunTrack(run_id, last=after)

    def discard(self, run_id: str) -> None:
        """Forget a run that gets no end from here (another worker goes on with it)."""
        self._runs.pop(run_id, None)

    def add_reader(self, run_id: str, channel: str) -> None:
        """Publish a run to this web process too, if it is written here."""
        run = self._runs.get(run_id)
        if run is not None:
            run.channels.add(channel)
            self._queue(Entry.sync(run, channel))

    def hear_control(self, message: dict[str, Any]) -> None:
        """Give this to `ControlListener.on_control`: it lets later readers in."""
        if message.get("type") == "read":
            self.add_reader(str(message["run_id"]), str(message["channel"]))

    def when_reader_gone(self, callback: Callable[[str], None]) -> None:
        """Set `on_reader_gone` after the fact: what it calls may need this writer first."""
        self._channels.on_gone = callback

    @property
    def live_runs(self) -> int:
        """Runs begun here and not ended."""
        return len(self._runs)

    def flush(self, timeout: float) -> bool:
        """Wait until Redis has acknowledged all that was written; False when it did not."""
        done = threading.Event()
        self._queue(done)
        return done.wait(timeout)

    def close(self, timeout: float = 5.0) -> bool:
        """Flush and stop. False when something could not be written in time."""
        flushed = self.flush(timeout)
        self._closing.set()
        self._wake.set()
        if not flushed and self._wire is not None:
            self._wire.close()
        self._thread.join(timeout=5)
        return flushed

    def _put(self, run_id: str, kind: str, value: Any, reply_to: str | None) -> int:
        run = self._runs.get(run_id)
        if run is None:
            run = self._runs[run_id] = RunTrack(run_id)
        if run.is_fresh and reply_to is not None:
            run.channels.add(reply_to)
        if run.unacknowledged > self._limit:
            run.wait_for_room(self._limit)
        run.last += 1
        entry = Entry(run, run.last, kind, value)
        run.written += entry.size
        run.is_fresh = False
        self._queue(entry)
        return run.last

    def _queue(self, item: Entry | threading.Event) -> None:
        self._pending.append(item)
        if not self._wake.is_set():
            self._wake.set()

    def _run(self) -> None:
        backoff = Backoff()
        batch: list[Entry] = []
        flushed: list[threading.Event] = []
        while not (self._closing.is_set() and not self._pending and not batch):
            if not batch and not flushed:
                self._wait()
                batch, flushed = self._take()
            try:
                self._exchange(batch, backoff)
            except OSError as error:
                self._hang_up()
                if self._closing.is_set():
                    return
                log.warning("Redis lost (%s), writing again what it did not confirm", error)
                self._closing.wait(backoff.next_seconds())
                continue
            for entry in batch:
                entry.run.acknowledge(entry.size)
            for done in flushed:
                done.set()
            batch, flushed = [], []
        self._hang_up()

    def _wait(self) -> None:
        """Until there is something to write, or a silent channel is to be probed."""
        if not self._pending:
            self._wake.clear()
            if not self._pending and not self._closing.is_set():
                self._wake.wait(PROBE_SECONDS if self._channels.has_suspects else None)

    def _take(self) -> tuple[list[Entry], list[threading.Event]]:
        """The next batch, in order, pieces of one run merged."""
        taken: list[Entry] = []
        flushed: list[threading.Event] = []
        size = 0
        while self._pending and size < BATCH_BYTES:
            item = self._pending.popleft()
            if isinstance(item, Entry):
                taken.append(item)
                size += item.size
            else:
                flushed.append(item)
        return merge(taken), flushed

    def _exchange(self, batch: list[Entry], backoff: Backoff) -> None:
        """One round trip. Raises OSError when it must be made again."""
        if self._wire is None:
            self._wire = Wire(self._pool, REPLY_SECONDS)
            self._channels.reset()
            self._send_again()
        self._round_trip(self._wire, batch)
        backoff.reset()
        now = time.monotonic()
        self._sent.extend((now, entry) for entry in batch if not entry.is_sync)
        while self._sent and self._sent[0][0] < now - RESENT_SECONDS:
            self._sent.popleft()

    def _send_again(self) -> None:
        """What Redis may have confirmed and then lost, or not delivered to the readers."""
        if self._sent and self._wire is not None:
            self._round_trip(self._wire, [entry for _, entry in self._sent])

    def _round_trip(self, wire: Wire, batch: list[Entry]) -> None:
        commands = [command for entry in batch for command in entry.commands()]
        messages = self._channels.messages(batch)
        commands += messages.values()
        if not commands:
            return
        wire.send(b"".join(commands))
        replies = wire.receive_many(len(commands))
        stored, heard = replies[: len(commands) - len(messages)], replies[-len(messages) :]
        for reply in stored:
            failed_reply(reply)
        if messages:
            self._channels.heard(dict(zip(messages, heard, strict=True)), self._runs)

    def _hang_up(self) -> None:
        if self._wire is not None:
            with contextlib.suppress(OSError):
                self._wire.close()
            self._wire = None
