"""Events of a run and how they lie in Redis."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from redis import Redis

TEXT: Final = "text"
REASONING: Final = "reasoning"
TOOLS: Final = "tools"
STEP: Final = "step"
"""How a research job's steps stand; only streams of research carry it."""

END: Final = "end"
LOST: Final = "lost"
SYNC: Final = "sync"
"""Published, never stored or delivered: everything up to `last` lies in the stream."""

KEPT_AFTER_END_SECONDS: Final = 600
"""How long a finished run can be replayed."""

KEPT_WITHOUT_END_SECONDS: Final = 86_400
"""When the stream of a run that never ended goes away."""

READ_BATCH: Final = 1000

TEXT_KINDS = frozenset({TEXT, REASONING})


@dataclass(frozen=True, slots=True)
class Event:
    """Pieces `first` to `last` of a run's answer; numbers start at 1 and have no holes.

    `kind` is text or reasoning (value: str), tools (value: list of OpenAI deltas), or end
    (value: `{"state","finish_reason","error_code","error","usage"}`, and `retry_after` in
    seconds where an engine said so), which is the last.
    Readers may also get `lost`, which is not stored: pieces `first` to `last` can't be had
    any more, so the answer must be taken from the database when the run is over.
    """

    first: int
    last: int
    kind: str
    value: Any

    @property
    def is_end(self) -> bool:
        return self.kind == END


def stream_key(run_id: str) -> str:
    """The Redis Stream of a run."""
    return f"weft:run:{run_id}"


def encode_value(kind: str, value: Any) -> str:
    """Text as it is, anything else as JSON."""
    if kind in TEXT_KINDS:
        return str(value)
    return json.dumps(value, separators=(",", ":"))


def decode_value(kind: str, stored: str) -> Any:
    """The opposite of `encode_value`."""
    return stored if kind in TEXT_KINDS else json.loads(stored)


def read_events(redis: Redis, run_id: str, after: int = 0) -> list[Event]:
    """Everything stored of a run after number `after`, in order; empty when there's nothing.

    An `after` in the middle of an entry gives that whole entry. Raises redis.RedisError.
    """
    key, events, position = stream_key(run_id), [], after
    while True:
        rows: Any = redis.xrange(key, min=f"(0-{position}", count=READ_BATCH)
        for entry_id, fields in rows:
            events.append(_to_event(entry_id, fields))
        if len(rows) < READ_BATCH:
            return events
        position = events[-1].last


def partial_text(redis: Redis, run_id: str) -> tuple[str, int]:
    """What a run has answered so far, and the last number used (0 when nothing is stored).

    For whoever finishes a run whose worker died: keep the text, and continue numbering
    with `StreamWriter.resume(run_id, after=last)`. Raises redis.RedisError.
    """
    events = read_events(redis, run_id)
    text = "".join(event.value for event in events if event.kind == TEXT)
    return text, events[-1].last if events else 0


def _to_event(entry_id: Any, fields: dict[Any, Any]) -> Event:
    plain = {_as_text(name): _as_text(value) for name, value in fields.items()}
    last = int(_as_text(entry_id).partition("-")[2])
    kind = plain["k"]
    return Event(int(plain["f"]), last, kind, decode_value(kind, plain["v"]))


def _as_text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
