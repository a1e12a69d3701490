"""Periodic duties as one table. Each runs on one worker at a time, wherever it is due first."""

from __future__ import annotations

import logging
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import gevent
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import import_attribute

from app.core.queue import QUEUES
from worker import tasks

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Duty:
    """A function without arguments, by dotted name, called every so many seconds.

    It is not called again before it has returned. It must be safe to be cut off anywhere
    and to run twice: a worker may die in it.
    """

    name: str
    every_seconds: float
    task: str


DUTIES: tuple[Duty, ...] = (
    Duty("due jobs", 1, "worker.schedule.enqueue_due_jobs"),
    Duty("research", 1, "worker.tasks.reap_research"),
    Duty("datasets", 2, "worker.tasks.reap_datasets"),
    Duty("proofs", 1, "worker.proving.prove_replicas"),
    Duty("model choice", 30, "worker.tasks.choose_models"),
    Duty("points", 600, "worker.housekeeping.settle_points"),
    Duty("unwanted files", 600, "worker.tasks.sweep_files"),
    Duty("old heartbeats", 3600, "worker.housekeeping.expire_beats"),
    Duty("silent nodes", 3600, "worker.housekeeping.drop_silent_nodes"),
)

LOCK_SECONDS: Final = 15.0
STOP_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 5.0

# Ours again, or nobody's: hold it; somebody else's, or not due: leave it for so many ms.
HOLD_SCRIPT: Final = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return math.max(1, redis.call('PTTL', KEYS[1])) end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 0
"""

# Kept until the next time it is due, so that nobody else finds it due earlier.
RELEASE_SCRIPT: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], 'done', 'PX', ARGV[2]) end
"""


class Schedule:
    """Runs the duties that are due and that no other worker runs. Call `tick` every second."""

    def __init__(self, redis: Redis, duties: Sequence[Duty] = DUTIES) -> None:
        self._redis = redis
        self._duties = [(duty, _load(duty)) for duty in duties]
        self._owner = f"{socket.gethostname()}-{uuid.uuid4().hex}"
        self._running: dict[str, gevent.Greenlet] = {}
        self._ask_at: dict[str, float] = {}

    def tick(self) -> None:
        """Start what is due; keep hold of what runs. Raises redis.RedisError."""
        now = time.monotonic()
        for duty, function in self._duties:
            if now < self._ask_at.get(duty.name, 0.0):
                continue
            running = self._running.get(duty.name)
            if running is not None and not running.dead:
                self._hold(duty)
            elif self._hold(duty):
                self._running[duty.name] = gevent.spawn(self._run, duty, function)

    def stop(self) -> None:
        """End what runs; another worker does it again when the lock has run out."""
        gevent.killall(list(self._running.values()), timeout=STOP_SECONDS)

    def _hold(self, duty: Duty) -> bool:
        milliseconds = int(LOCK_SECONDS * 1000)
        left: Any = self._redis.eval(HOLD_SCRIPT, 1, _key(duty), self._owner, milliseconds)
        # Nobody finds it due earlier than this; but a lock may be lost with Redis.
        self._ask_at[duty.name] = time.monotonic() + min(max(0, left) / 1000, LOOK_SECONDS)
        return bool(left == 0)

    def _run(self, duty: Duty, function: Callable[[], Any]) -> None:
        began = time.monotonic()
        try:
            function()
        except Exception:
            log.exception("Duty %r failed", duty.name)
        # Half a tick early, or a duty of one second would run every two.
        rest = max(0.05, duty.every_seconds - 0.5 - (time.monotonic() - began))
        try:
            self._redis.eval(RELEASE_SCRIPT, 1, _key(duty), self._owner, int(rest * 1000))
        except Exception as error:  # noqa: BLE001 - the lock runs out by itself
            log.warning("Duty %r: could not let go of its lock (%s)", duty.name, error)


def enqueue_due_jobs(redis: Redis | None = None) -> int:
    """Move jobs enqueued for a later time to their queue when it has come; gives how many."""
    redis = redis or tasks.context().store
    return sum(_enqueue_due(redis, name) for name in QUEUES)


def _enqueue_due(redis: Redis, queue_name: str) -> int:
    queue = Queue(queue_name, connection=redis, serializer=JSONSerializer)
    registry = queue.scheduled_job_registry
    due = registry.get_jobs_to_schedule()
    if not due:
        return 0
    jobs = Job.fetch_many(due, connection=redis, serializer=JSONSerializer)
    with redis.pipeline() as pipeline:
        for job_id, job in zip(due, jobs, strict=True):
            if job is not None:
                queue._enqueue_job(job, pipeline=pipeline)
            registry.remove(job_id, pipeline=pipeline)
        pipeline.execute()
    return len(due)


def _key(duty: Duty) -> str:
    return f"weft:duty:{duty.name.replace(' ', '-')}"


def _load(duty: Duty) -> Callable[[], Any]:
    function = import_attribute(duty.task)
    if not callable(function):
        raise TypeError(f"Duty {duty.name!r}: {duty.task} is not a function.")
    return function
