"""What tasks need of their process: settings, database, queue, token path. One per process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from redis import Redis
from sqlalchemy.orm import Session, sessionmaker

from app.config import Settings
from app.core.database import make_engine
from app.core.queue import RunQueue
from app.core.stream import ControlListener, StreamWriter

log = logging.getLogger(__name__)


class ActiveRuns:
    """The runs under way in this process, and how to tell them to stop."""

    def __init__(self) -> None:
        self._stops: dict[str, Callable[[str], None]] = {}

    @contextmanager
    def watch(self, run_id: str, stop: Callable[[str], None]) -> Iterator[None]:
        """While the block runs, `stop(reason)` is called when the run is to be cancelled.

        `reason` is `cancelled` (somebody asked) or `reader_gone`. `stop` must not block: it
        runs in the token path. It may be called more than once.
        """
        self._stops[run_id] = stop
        try:
            yield
        finally:
            self._stops.pop(run_id, None)

    def stop(self, run_id: str, reason: str) -> bool:
        """Tell a run to stop; False when it does not run here."""
        stop = self._stops.get(run_id)
        if stop is not None:
            stop(reason)
        return stop is not None

    def hear_control(self, message: dict[str, Any]) -> None:
        """Give this to `ControlListener.on_control`."""
        if message.get("type") == "cancel":
            self.stop(str(message.get("run_id")), "cancelled")

    def __len__(self) -> int:
        return len(self._stops)


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """Built once, before the first job."""

    settings: Settings
    redis: Redis
    sessions: sessionmaker[Session]
    queue: RunQueue
    writer: StreamWriter
    control: ControlListener
    runs: ActiveRuns = field(default_factory=ActiveRuns)

    def start(self) -> None:
        """Listen for control messages."""
        self.control.on_control(self.writer.hear_control)
        self.control.on_control(self.runs.hear_control)
        self.control.start()

    def close(self) -> None:
        """Write what is left to write, and let go of everything."""
        if not self.writer.close():
            log.error("Redis did not take the last pieces of some answers")
        self.control.close()
        self.sessions.kw["bind"].dispose()
        self.redis.close()


def build(settings: Settings) -> WorkerContext:
    """Everything a task needs. Connects to nothing yet."""
    redis = Redis.from_url(settings.redis_url)
    runs = ActiveRuns()
    return WorkerContext(
        settings=settings,
        redis=redis,
        sessions=sessionmaker(make_engine(settings.database_url), expire_on_commit=False),
        queue=RunQueue(redis),
        writer=StreamWriter(
            settings.redis_url,
            flush_ms=settings.stream_flush_ms,
            on_reader_gone=lambda run_id: _reader_gone(runs, run_id),
        ),
        control=ControlListener(settings.redis_url),
        runs=runs,
    )


_current: list[WorkerContext] = []


def install(context: WorkerContext) -> None:
    """Make this the context of the process; an earlier one is replaced."""
    _current[:] = [context]


def current() -> WorkerContext:
    """The context of this process. Raises RuntimeError outside a worker."""
    if not _current:
        raise RuntimeError("No worker context: tasks run in a worker, or after install().")
    return _current[0]


def _reader_gone(runs: ActiveRuns, run_id: str) -> None:
    runs.stop(run_id, "reader_gone")
