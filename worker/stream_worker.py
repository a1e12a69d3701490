"""An RQ worker that runs many jobs at once in one gevent process.

Kept thin over RQ's own `BaseWorker`: registration, registries, failures and commands are
RQ's; taking jobs, recording them and finishing the plain ones are done for many at a time.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import FrameType
from typing import Any, Final

import gevent
import gevent.event
import gevent.lock
import gevent.pool
from redis import Redis
from rq import Queue, worker_registration
from rq.callbacks import execute_stopped_callback
from rq.command import handle_command
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException
from rq.utils import now
from rq.worker import BaseWorker
from rq.worker.base import WorkerStatus

from app.core.stream.wire import Asker, Listener, quick_client
from worker import bookkeeping
from worker.bookkeeping import Activity, insist, interrupt
from worker.dequeue import Taker, new_token
from worker.penalty import GreenletDeathPenalty, JobStopped, WorkerStopping

Hook = Callable[[], None]

DEFAULT_SLOTS: Final = {"runs": 512, "research": 64, "default": 32}
MOST_TAKEN_AT_ONCE: Final = 32
WAIT_SECONDS: Final = 1
POLL_SECONDS: Final = 0.1
CLEANUP_SECONDS: Final = 5.0
MOST_FAILING_AT_ONCE: Final = 16

log = logging.getLogger("weft.worker")


class StreamWorker(BaseWorker):
    """Runs up to `slots[queue]` jobs of each queue at once; no queue can starve another.

    `task_names` are the only functions it calls (None: any). `on_start` hooks run once
    before the first job, `on_tick` hooks about every second in their own greenlet.
    Needs gevent's monkey-patching before anything else is imported.
    """

    death_penalty_class = GreenletDeathPenalty

    def __init__(
        self,
        redis_url: str,
        *,
        slots: Mapping[str, int] | None = None,
        name: str | None = None,
        task_names: frozenset[str] | None = None,
        grace_seconds: float = 30.0,
        beat_seconds: float = 10.0,
        maintenance_seconds: int = 60,
        execution_ttl_seconds: int = 90,
        on_start: Sequence[Hook] = (),
        on_tick: Sequence[Hook] = (),
    ) -> None:
        self._slots = dict(slots or DEFAULT_SLOTS)
        super().__init__(
            list(self._slots),
            name=name or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}",
            connection=quick_client(redis_url),
            serializer=JSONSerializer,
            maintenance_interval=maintenance_seconds,
            prepare_for_work=False,
        )
        self.hostname, self.pid = socket.gethostname(), os.getpid()
        self._takers = {
            queue.name: Taker(
                self.connection.connection_pool, queue, self.name, execution_ttl_seconds
            )
            for queue in self.queues
        }
        self._recorder = Asker(self.connection.connection_pool)
        self._task_names = task_names
        self._grace_seconds = grace_seconds
        self._beat_seconds = beat_seconds
        self._execution_ttl_seconds = execution_ttl_seconds
        self._on_start, self._on_tick = tuple(on_start), tuple(on_tick)
        self._listener = Listener(redis_url, [self.pubsub_channel_name], self._hear)
        self._pools = {queue: gevent.pool.Pool(size) for queue, size in self._slots.items()}
        self._activities: dict[str, Activity] = {}
        self._done: list[Activity] = []
        self._done_event = gevent.event.Event()
        self._failing = gevent.lock.BoundedSemaphore(MOST_FAILING_AT_ONCE)
        self._stopping_job = gevent.lock.RLock()
        self._signals = 0
        self._has_ended = False

    # -- Life -----------------------------------------------------------------------------

    def work(self, *_: Any, **__: Any) -> bool:
        """Work until SIGTERM or SIGINT; finish what runs within the grace period.

        A second signal ends at once. Redis going away never ends it. True when all jobs
        had finished.
        """
        self._install_signal_handlers()  # type: ignore[no-untyped-call]
        insist(self.register_birth, give_up=self._must_end)
        self._listener.start()
        for hook in self._on_start:
            hook()
        takers = [gevent.spawn(self._take_forever, queue) for queue in self.queues]
        others = [
            gevent.spawn(duty)
            for duty in (self._finish_forever, self._beat, self._maintain, self._tick)
        ]
        log.info("Worker %s serves %s", self.name, self._slots)
        while not self._signals:
            gevent.sleep(POLL_SECONDS)
        log.info("Worker %s stops; %d jobs under way", self.name, len(self._activities))
        finished = self._drain(takers)
        self._end(others)
        return finished

    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._signals > 0

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """Signal handler: only counts. The main greenlet looks at the count."""
        self._signals += 1

    def _drain(self, takers: list[gevent.Greenlet]) -> bool:
        """Let jobs finish; end those that don't within the grace period."""
        deadline = time.monotonic() + self._grace_seconds
        # A taker that waits on Redis may be handed a job just now: it gives it back.
        gevent.joinall(takers, timeout=WAIT_SECONDS + 1)
        while self._activities and self._signals < 2 and time.monotonic() < deadline:
            gevent.sleep(POLL_SECONDS)
        left = list(self._activities.values())
        if left:
            log.warning("Worker %s ends %d jobs before they are done", self.name, len(left))
        for activity in left:
            interrupt(activity, WorkerStopping())
        gevent.joinall([a.greenlet for a in left if a.greenlet], timeout=CLEANUP_SECONDS)
        return not left

    def _end(self, others: list[gevent.Greenlet]) -> None:
        self._has_ended = True
        self._done_event.set()
        gevent.joinall(others[:1], timeout=CLEANUP_SECONDS)
        gevent.killall(others)
        self._listener.close()
        insist(self.register_death, give_up=lambda: True)
        log.info("Worker %s has stopped", self.name)

    def _must_end(self) -> bool:
        """No more waiting for Redis: a second signal came, or all else has ended."""
        return self._signals > 1 or self._has_ended

    # -- Jobs -----------------------------------------------------------------------------

    def _take_forever(self, queue: Queue) -> None:
        pool = self._pools[queue.name]
        while not self._signals:
            pool.wait_available(timeout=WAIT_SECONDS)
            if pool.free_count() > 0 and not self._signals:
                insist(lambda: self._take(queue, pool), give_up=lambda: self._signals > 0)

    def _take(self, queue: Queue, pool: gevent.pool.Pool) -> None:
        """Wait for a job; start it, and as many more as there are and fit."""
        taker = self._takers[queue.name]
        first_id = taker.wait(WAIT_SECONDS)
        if first_id is None:
            return
        if self._signals:
            taker.give_back(first_id)
            return
        more, token = min(pool.free_count(), MOST_TAKEN_AT_ONCE) - 1, new_token()
        begun = insist(lambda: taker.take(first_id, more, token), give_up=self._must_end)
        for activity in begun or ():
            self._activities[activity.execution.id] = activity
            self.executions[activity.execution.id] = activity.execution
            activity.greenlet = pool.spawn(self._run, activity)
        gevent.sleep(0)  # they begin before it is waited for others

    def _run(self, activity: Activity) -> None:
        """One job, from its first line to its record."""
        job = activity.job
        try:
            activity.is_interruptible = True
            if activity.interruption is not None:
                raise activity.interruption
            self._check_name(job)
            timeout = job.timeout or self.queue_class.DEFAULT_TIMEOUT
            with self.death_penalty_class(timeout, JobTimeoutException, job_id=job.id):
                activity.result = job.perform()
            activity.is_interruptible = False
        except JobStopped:
            activity.is_interruptible = False
            self._record(activity, lambda: self._fail_stopped(activity))
        except BaseException:  # noqa: BLE001 - whatever a job raises is that job's failure
            activity.is_interruptible = False
            error = sys.exc_info()
            self._record(
                activity,
                lambda: self._finalize_failure(job, activity.queue, activity.execution, error),
            )
        else:
            self._succeed(activity)

    def _succeed(self, activity: Activity) -> None:
        if bookkeeping.needs_stock_path(activity, self.default_result_ttl):
            self._finish_as_rq_does(activity)
        else:
            self._done.append(activity)
            self._done_event.set()

    def _finish_as_rq_does(self, activity: Activity) -> None:
        job, queue, execution = activity.job, activity.queue, activity.execution
        self._record(
            activity, lambda: self._finalize_success(job, queue, execution, activity.result)
        )

    def _record(self, activity: Activity, action: Callable[[], None]) -> None:
        """Write how a job ended through RQ, a few at a time, however long Redis is away."""
        try:
            with self._failing:
                insist(action, give_up=self._must_end)
        finally:
            self._forget(activity)

    def _fail_stopped(self, activity: Activity) -> None:
        job = activity.job
        job.ended_at = now()
        execute_stopped_callback(job, self.death_penalty_class)
        # RQ has one slot for the job being stopped, which several may want at once.
        with self._stopping_job:
            self._stopped_job_id = job.id
            self.handle_job_failure(
                job,
                queue=activity.queue,
                exc_string="Job stopped by request.",
                execution=activity.execution,
            )

    def _forget(self, activity: Activity) -> None:
        self._activities.pop(activity.execution.id, None)
        self.executions.pop(activity.execution.id, None)

    def _check_name(self, job: Job) -> None:
        if self._task_names is not None and job.func_name not in self._task_names:
            raise PermissionError(f"{job.func_name!r} is not a task of this worker.")

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """Seconds that an execution counts as alive without being renewed."""
        return self._execution_ttl_seconds

    # -- Duties ---------------------------------------------------------------------------

    def _finish_forever(self) -> None:
        """Record finished jobs; those that end while this is written go with the next."""
        while not (self._has_ended and not self._done):
            self._done_event.wait()
            self._done_event.clear()
            done, self._done = self._done, []
            if done:
                insist(lambda batch=done: self._finish(batch), give_up=self._must_end)  # type: ignore[misc]
                for activity in done:
                    self._forget(activity)

    def _finish(self, done: list[Activity]) -> None:
        for activity in bookkeeping.record_done(self._recorder, self.name, done):
            gevent.spawn(self._finish_as_rq_does, activity)

    def _beat(self) -> None:
        """Keep the worker and all that it runs alive in RQ's eyes."""
        while True:
            insist(self._beat_once, give_up=self._must_end)
            gevent.sleep(self._beat_seconds)

    def _beat_once(self) -> None:
        self._beat_worker()
        bookkeeping.record_alive(
            self.connection,
            list(self._activities.values()),
            self.get_heartbeat_ttl,
            older_than=now() - timedelta(seconds=self._beat_seconds),
        )

    def _beat_worker(self) -> None:
        with self.connection.pipeline(transaction=False) as pipeline:
            self.heartbeat(pipeline=pipeline)
            pipeline.hset(self.key, "state", self._busy_or_idle())
            was_missing = pipeline.execute()[0] == 1
            if was_missing:
                # Redis came back without its data: sign up again.
                pipeline.hset(self.key, mapping=self.serialize())
                worker_registration.register(self, pipeline)
                pipeline.expire(self.key, self.worker_ttl + 60)
                pipeline.execute()

    def _busy_or_idle(self) -> str:
        self._state = WorkerStatus.BUSY if self._activities else WorkerStatus.IDLE
        return self._state

    def _maintain(self) -> None:
        """RQ's own cleaning: abandoned jobs, stuck jobs, dead workers, expired results."""
        while True:
            insist(lambda: bookkeeping.clean(self), give_up=self._must_end)
            gevent.sleep(self.maintenance_interval)

    def _tick(self) -> None:
        while True:
            for hook in self._on_tick:
                try:
                    hook()
                except Exception:  # a broken duty must not end the others
                    log.exception("A periodic duty failed")
            gevent.sleep(1)

    # -- Commands -------------------------------------------------------------------------

    def _hear(self, _channel: bytes, payload: bytes) -> None:
        """A command on this worker's channel: stop a job, stop an execution, shut down."""
        try:
            command = self._parse(payload)
        except ValueError:
            log.warning("Dropped a command that is not JSON")
            return
        if command.get("command") == "stop-job":
            self.stop_job(str(command.get("job_id")))
        elif command.get("command") != "kill-horse":
            handle_command(self, command)

    @staticmethod
    def _parse(payload: bytes) -> dict[str, Any]:
        command = json.loads(payload)
        if not isinstance(command, dict) or "command" not in command:
            raise ValueError("not a command")
        return command

    def stop_job(self, job_id: str) -> None:
        """Stop a job wherever it is in its work; it counts as stopped, not as failed."""
        found = [a for a in self._activities.values() if a.job.id == job_id]
        for activity in found:
            self.request_stop_execution(activity.execution.id)
        if not found:
            log.info("Job %s is not running here", job_id)

    def request_stop_execution(self, execution_id: str) -> None:
        """Stop one execution."""
        activity = self._activities.get(execution_id)
        if activity is not None:
            interrupt(activity, JobStopped())

    # -- What RQ would do and gevent does otherwise ---------------------------------------

    def _set_connection(self, connection: Redis) -> Redis:
        """No long socket time-out: only `_waiting` blocks in Redis."""
        return connection

    def get_current_executions(self, refresh: bool = False) -> list[Execution]:
        """Those of this process; read from Redis only for a worker looked up by its key."""
        return list(self.executions.values()) or super().get_current_executions(refresh)
