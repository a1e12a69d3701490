"""RQ's records of many jobs, written together: begun, alive, done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar, cast

import gevent
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq import Queue
from rq.executions import WORKER_EXECUTIONS_KEY_TEMPLATE, Execution
from rq.job import Job, Retry
from rq.registry import StartedJobRegistry
from rq.utils import now
from rq.worker import BaseWorker

from app.core.stream.wire import Asker

RedisAway: Final = (RedisConnectionError, RedisTimeoutError, ReadOnlyError, OSError)
"""Redis is down, restarting, or not writable yet: wait and try again."""

BEAT_BATCH: Final = 128
CLEANING_LOCK_SECONDS: Final = 899  # as RQ takes it

# What RQ leaves of a job without a result and without dependents (`Execution.delete`,
# `Job.cleanup`): nothing. ARGV: job, execution, registry of jobs under way, seconds; of each.
DONE_SCRIPT: Final = b"""
local left, count, seconds = {}, 0, 0
for i = 1, #ARGV, 4 do
  local id, execution, job = ARGV[i], ARGV[i + 1], 'rq:job:' .. ARGV[i]
  if redis.call('EXISTS', job .. ':dependents') == 1 then
    left[#left + 1] = (i - 1) / 4
  else
    local both = id .. ':' .. execution
    redis.call('DEL', job, 'rq:job::' .. id .. ':dependencies', 'rq:results:' .. id,
      'rq:executions:' .. id, 'rq:execution:' .. both)
    redis.call('ZREM', ARGV[i + 2], both)
    redis.call('SREM', KEYS[2], both)
    count, seconds = count + 1, seconds + tonumber(ARGV[i + 3])
  end
end
redis.call('HINCRBY', KEYS[1], 'successful_job_count', count)
redis.call('HINCRBYFLOAT', KEYS[1], 'total_working_time', string.format('%.6f', seconds))
return left
"""

Answer = TypeVar("Answer")

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Activity:
    """One job that this worker is running."""

    job: Job
    queue: Queue
    execution: Execution
    greenlet: gevent.Greenlet | None = None
    result: Any = None
    is_interruptible: bool = False
    interruption: BaseException | None = None

    @property
    def started(self) -> StartedJobRegistry:
        """Its queue's registry of jobs under way."""
        return cast(StartedJobRegistry, self.queue.started_job_registry)


def insist(action: Callable[[], Answer], *, give_up: Callable[[], bool]) -> Answer | None:
    """Do it, and again for as long as Redis is away; None when told to give up."""
    pause = 0.05
    while True:
        try:
            return action()
        except RedisAway as error:
            if give_up():
                log.warning("Gave up on Redis while stopping (%s)", error)
                return None
            log.warning("Redis is away (%s), trying again in %.1f s", error, pause)
            gevent.sleep(pause)
            pause = min(2.0, pause * 2)


def interrupt(activity: Activity, error: BaseException) -> None:
    """Raise an error inside a job. One that has not begun gets it when it does.

    A job that is over is left alone: its record is being written.
    """
    if not activity.is_interruptible:
        activity.interruption = error
    elif activity.greenlet is not None:
        activity.greenlet.kill(error, block=False)


def record_alive(
    redis: Redis,
    activities: Iterable[Activity],
    ttl: Callable[[Job], int],
    older_than: datetime,
) -> None:
    """Renew the executions begun before a time; one silent for its TTL counts as abandoned."""
    due = [a for a in activities if a.execution.created_at <= older_than]
    for start in range(0, len(due), BEAT_BATCH):
        with redis.pipeline(transaction=False) as pipeline:
            for activity in due[start : start + BEAT_BATCH]:
                activity.execution.heartbeat(activity.started, ttl(activity.job), pipeline)
            pipeline.execute()
        gevent.sleep(0)


def clean(worker: BaseWorker) -> None:
    """RQ's own cleaning, also after a worker that was killed in the middle of its own.

    RQ's lock would keep all others from it for a quarter of an hour. Who has held it for
    longer than the pause between two rounds is dead.
    """
    for queue in worker.queues:
        left = cast(int, worker.connection.ttl(queue.registry_cleaning_key))
        if 0 <= left < CLEANING_LOCK_SECONDS - worker.maintenance_interval:
            queue.release_maintenance_lock()  # type: ignore[no-untyped-call]
    worker.run_maintenance_tasks()  # type: ignore[no-untyped-call]


def record_done(asker: Asker, worker_name: str, done: Sequence[Activity]) -> list[Activity]:
    """Write the success of jobs that need nothing special, in one round trip.

    Gives those that other jobs wait for, which are left as they are. Raises OSError.
    """
    words: list[bytes] = []
    for activity in done:
        job = activity.job
        job.ended_at = now()
        seconds = (job.ended_at - job.started_at).total_seconds() if job.started_at else 0.0
        names = (job.id, activity.execution.id, activity.started.key, f"{seconds:f}")
        words += [name.encode() for name in names]
    left = asker.ask_one(
        b"EVAL", DONE_SCRIPT, b"2", f"rq:worker:{worker_name}".encode(),
        WORKER_EXECUTIONS_KEY_TEMPLATE.format(worker_name).encode(), *words,
    )  # fmt: skip
    return [done[index] for index in left]


def needs_stock_path(activity: Activity, default_result_ttl: int) -> bool:
    """True for jobs that use what only RQ's own way of finishing a job knows."""
    job = activity.job
    return bool(
        job.get_result_ttl(default_result_ttl)
        or job._success_callback_name
        or job.repeats_left
        or job.has_rate_limit
        or job.webhooks
        or job.group_id
        or isinstance(activity.result, Retry)
    )
