"""What the writer carries: runs under way, their entries, and who listens to them."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import hiredis

from app.core.stream.events import (
    END,
    KEPT_AFTER_END_SECONDS,
    KEPT_WITHOUT_END_SECONDS,
    REASONING,
    SYNC,
    TEXT,
    TOOLS,
    encode_value,
    stream_key,
)
from app.core.stream.wire import pack

MOST_MERGED_BYTES: Final = 65_536
ENTRY_OVERHEAD_BYTES: Final = 100
GONE_OBSERVATIONS: Final = 4
OBSERVATION_SECONDS: Final = 1.0

MERGED_KINDS: Final = frozenset({TEXT, REASONING, TOOLS})
PASSING_ERRORS: Final = (
    "LOADING", "READONLY", "OOM", "MISCONF", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "NOAUTH",
)  # fmt: skip

_quote = json.encoder.encode_basestring_ascii
to_json = json.JSONEncoder(separators=(",", ":")).encode

log = logging.getLogger(__name__)


class RunTrack:
    """A run that this process writes. The job adds, the writer acknowledges."""

    __slots__ = ("acknowledged", "channels", "gone", "head", "is_fresh", "key", "last", "room", "run_id", "written")  # fmt: skip

    def __init__(self, run_id: str, *, last: int = 0) -> None:
        self.run_id = run_id
        self.key = stream_key(run_id).encode()
        self.head = b"*9\r\n$4\r\nXADD\r\n$%d\r\n%b\r\n" % (len(self.key), self.key)
        self.last = last
        self.channels: set[str] = set()
        self.written = 0
        self.acknowledged = 0
        self.room = threading.Event()
        self.is_fresh = True
        self.gone = False

    @property
    def unacknowledged(self) -> int:
        return self.written - self.acknowledged

    def acknowledge(self, size: int) -> None:
        self.acknowledged += size
        if not self.room.is_set():
            self.room.set()

    def wait_for_room(self, limit: int) -> None:
        """Block the job while Redis has too much of its run to take."""
        while self.unacknowledged > limit:
            self.room.clear()
            if self.unacknowledged > limit:
                self.room.wait(1.0)


class Entry:
    """One or more pieces of one run that are stored and published together."""

    __slots__ = ("_packed", "_published", "first", "kind", "last", "only_channel", "run", "size", "value")  # fmt: skip

    def __init__(self, run: RunTrack, number: int, kind: str, value: Any) -> None:
        self.run = run
        self.first = self.last = number
        self.kind = kind
        self.value = value
        text_bytes = len(value) if isinstance(value, str) else len(to_json(value))
        self.size = text_bytes + ENTRY_OVERHEAD_BYTES
        self.only_channel: str | None = None
        self._packed: list[bytes] | None = None
        self._published: str | None = None

    @classmethod
    def sync(cls, run: RunTrack, channel: str) -> Entry:
        """Tells one web process that everything so far lies in the stream."""
        entry = cls(run, run.last, SYNC, None)
        entry.first, entry.size, entry.only_channel = 0, 0, channel
        return entry

    @property
    def is_sync(self) -> bool:
        return self.only_channel is not None

    def absorb(self, later: Entry) -> bool:
        """Take in the next piece of the same run, if both are of a kind that adds up."""
        if self.kind != later.kind or self.kind not in MERGED_KINDS:
            return False
        if self.size + later.size > MOST_MERGED_BYTES:
            return False
        self.value = self.value + later.value
        self.last = later.last
        self.size += later.size
        return True

    def commands(self) -> list[bytes]:
        """The packed commands that store it."""
        if self._packed is None:
            self._packed = [] if self.is_sync else self._pack()
        return self._packed

    def published(self) -> str:
        """Its part of the message to a web process: `[run_id, first, last, kind, value]`."""
        if self._published is None:
            value, name = self.value, _quote(self.run.run_id)
            said = _quote(value) if type(value) is str else to_json(value)
            self._published = f'[{name},{self.first},{self.last},"{self.kind}",{said}]'
        return self._published

    def _pack(self) -> list[bytes]:
        entry_id = b"0-%d" % self.last
        first = b"%d" % self.first
        kind = self.kind.encode()
        value = encode_value(self.kind, self.value).encode()
        add = b"%b$%d\r\n%b\r\n$1\r\nf\r\n$%d\r\n%b\r\n$1\r\nk\r\n$%d\r\n%b\r\n$1\r\nv\r\n$%d\r\n%b\r\n" % (
            self.run.head, len(entry_id), entry_id, len(first), first, len(kind), kind, len(value), value,
        )  # fmt: skip
        if self.kind == END:
            return [add, pack(b"EXPIRE", self.run.key, b"%d" % KEPT_AFTER_END_SECONDS)]
        if self.first == 1:
            return [add, pack(b"EXPIRE", self.run.key, b"%d" % KEPT_WITHOUT_END_SECONDS)]
        return [add]


def merge(entries: Iterable[Entry]) -> list[Entry]:
    """Join what is next to each other in one run. Order within a run is kept."""
    merged: list[Entry] = []
    latest: dict[str, Entry] = {}
    for entry in entries:
        before = latest.get(entry.run.run_id)
        if before is None or not before.absorb(entry):
            latest[entry.run.run_id] = entry
            merged.append(entry)
    return merged


def failed_reply(reply: Any) -> None:
    """Raise OSError for an error that passes; log one that does not. Repeats are no errors."""
    if not isinstance(reply, hiredis.ReplyError):
        return
    text = str(reply)
    if text.startswith(PASSING_ERRORS):
        raise ConnectionError(text)
    if "equal or smaller" not in text:
        log.error("Redis refused an entry: %s", text)


class Channels:
    """The web processes that wait, and which of them are deaf."""

    def __init__(
        self, on_gone: Callable[[str], None] | None, gone_after_seconds: float
    ) -> None:
        self.on_gone = on_gone
        self._gone_after_seconds = gone_after_seconds
        self._deaf: dict[str, list[float]] = {}

    @property
    def has_suspects(self) -> bool:
        return bool(self._deaf)

    def reset(self) -> None:
        """After Redis came back everybody has time to subscribe again."""
        self._deaf.clear()

    def messages(self, batch: list[Entry]) -> dict[str, bytes]:
        """One packed PUBLISH per web process, and an empty one to each that seemed deaf."""
        parts: dict[str, list[str]] = {channel: [] for channel in self._deaf}
        for entry in batch:
            channels = (
                entry.run.channels if entry.only_channel is None else (entry.only_channel,)
            )
            for channel in tuple(channels):
                parts.setdefault(channel, []).append(entry.published())
        return {
            channel: pack(b"PUBLISH", channel.encode(), f"[{','.join(found)}]".encode())
            for channel, found in parts.items()
        }

    def heard(self, receivers: Mapping[str, Any], runs: Mapping[str, RunTrack]) -> None:
        """Note who heard; tell of runs whose every reader has been deaf for long."""
        now = time.monotonic()
        for channel, count in receivers.items():
            failed_reply(count)
            if count != 0:
                self._deaf.pop(channel, None)
            elif self._is_gone(channel, now):
                self._give_up(channel, runs)

    def _is_gone(self, channel: str, now: float) -> bool:
        """Several silences a second or more apart, and long enough: not a blip."""
        silences = self._deaf.setdefault(channel, [])
        spacing = min(OBSERVATION_SECONDS, self._gone_after_seconds / GONE_OBSERVATIONS)
        if not silences or now - silences[-1] >= spacing:
            silences.append(now)
        return (
            len(silences) >= GONE_OBSERVATIONS and now - silences[0] >= self._gone_after_seconds
        )

    def _give_up(self, channel: str, runs: Mapping[str, RunTrack]) -> None:
        del self._deaf[channel]
        for run in list(runs.values()):
            if channel not in run.channels:
                continue
            run.channels.discard(channel)
            if not run.channels and not run.gone:
                run.gone = True
                self._tell(run.run_id)

    def _tell(self, run_id: str) -> None:
        log.info("Run %s: the web process that waited for it is gone", run_id)
        if self.on_gone is None:
            return
        try:
            self.on_gone(run_id)
        except Exception:
            log.exception("on_reader_gone failed for run %s", run_id)
