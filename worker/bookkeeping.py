"""RQ's records of many jobs, written together: begun, alive, done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar, cast
from uuid import uuid4

import gevent
from gevent.event import Event
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq import Queue
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job, JobStatus, Retry
from rq.registry import StartedJobRegistry
from rq.results import Result
from rq.utils import now
from rq.worker import BaseWorker

RedisAway: Final = (RedisConnectionError, RedisTimeoutError, ReadOnlyError, OSError)
"""Redis is down, restarting, or not writable yet: wait and try again."""

BEAT_BATCH: Final = 128
CLEANING_LOCK_SECONDS: Final = 899  # as RQ takes it

Answer = TypeVar("Answer")

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Activity:
    """One job that this worker is running."""

    job: Job
    queue: Queue
    execution: Execution
    # Set when Redis knows that the job is under way: its end may be written only then.
    begun: Event = field(default_factory=Event)
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


def begin(worker_name: str, jobs: Iterable[Job], queue: Queue) -> list[Activity]:
    """Name the executions. Once: recording them may have to be repeated, with the same ids."""
    return [
        Activity(job, queue, Execution(uuid4().hex, job.id, job.connection, worker_name))
        for job in jobs
    ]


def record_begin(
    redis: Redis, activities: Iterable[Activity], ttl: Callable[[Job], int]
) -> None:
    """Mark jobs as started by this worker, in one round trip. Safe to repeat."""
    with redis.pipeline(transaction=True) as pipeline:
        for activity in activities:
            job, execution, seconds = activity.job, activity.execution, ttl(activity.job)
            execution.save(ttl=seconds, pipeline=pipeline)
            registry = ExecutionRegistry(job.id, redis)
            registry.add(execution=execution, ttl=seconds, pipeline=pipeline)
            activity.started.add_execution(execution, pipeline=pipeline, ttl=seconds)
            pipeline.sadd(execution.worker_executions_key, execution.composite_key)
            job.prepare_for_execution(execution.worker_name, pipeline=pipeline)
            pipeline.persist(job.key)
            pipeline.lrem(activity.queue.intermediate_queue_key, 1, job.id)
        pipeline.execute()


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


def record_done(
    redis: Redis, worker_key: str, done: Iterable[Activity], default_result_ttl: int
) -> None:
    """Write the success of jobs that need nothing special, in one round trip."""
    seconds, count = 0.0, 0
    with redis.pipeline(transaction=True) as pipeline:
        for activity in done:
            job = activity.job
            seconds += _finish(activity, pipeline, job.get_result_ttl(default_result_ttl))
            count += 1
        pipeline.hincrby(worker_key, "successful_job_count", count)
        pipeline.hincrbyfloat(worker_key, "total_working_time", seconds)
        pipeline.execute()


def with_dependents(redis: Redis, done: list[Activity]) -> list[bool]:
    """For each job, whether others wait for it."""
    with redis.pipeline(transaction=False) as pipeline:
        for activity in done:
            pipeline.exists(activity.job.dependents_key)
        return [bool(found) for found in pipeline.execute()]


def needs_stock_path(activity: Activity) -> bool:
    """True for jobs that use what only RQ's own way of finishing a job knows."""
    job = activity.job
    return bool(
        job._success_callback_name
        or job.repeats_left
        or job.has_rate_limit
        or job.webhooks
        or job.group_id
        or isinstance(activity.result, Retry)
    )


def _finish(activity: Activity, pipeline: Any, result_ttl: int) -> float:
    """Queue the commands that end one execution; gives the seconds that it took."""
    job, execution = activity.job, activity.execution
    job.ended_at = now()
    if result_ttl == 0:
        pipeline.delete(
            job.key, job.dependents_key, job.dependencies_key, _results_key(job),
            ExecutionRegistry(job.id, job.connection).key, execution.key,
        )  # fmt: skip
        activity.started.remove_execution(execution, pipeline=pipeline)
        pipeline.srem(execution.worker_executions_key, execution.composite_key)
    else:
        job._status = JobStatus.FINISHED
        job._result = activity.result
        job._handle_success(
            result_ttl,
            pipeline=pipeline,
            worker_name=execution.worker_name,
            execution_id=execution.id,
            execution_started_at=execution.created_at,
            execution_ended_at=job.ended_at,
        )
        job.cleanup(result_ttl, pipeline=pipeline, remove_from_queue=False)
        execution.delete(job=job, pipeline=pipeline)
    return (job.ended_at - job.started_at).total_seconds() if job.started_at else 0.0


def _results_key(job: Job) -> str:
    return str(Result.get_key(job.id))  # type: ignore[no-untyped-call]
