"""The doorbell: RQ jobs that tell a worker to look at a row.

RQ 3.0 with its JSON serializer on both sides; arguments are ids. The database is the
truth: a lost or doubled ring does no harm, because a task claims its row first.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import hiredis
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from rq import Queue
from rq.exceptions import DuplicateJobError
from rq.serializers import JSONSerializer
from rq.utils import utcformat

from app.core.stream.wire import Asker, pack

RUNS: Final = "runs"
RESEARCH: Final = "research"
DATASETS: Final = "datasets"
DEFAULT: Final = "default"
QUEUES: Final = (RUNS, RESEARCH, DATASETS, DEFAULT)

RUN_TASK: Final = "worker.tasks.execute_run"
RESET_TASK: Final = "worker.tasks.mail_password_reset"
INVITATION_TASK: Final = "worker.tasks.mail_invitation"
LINK_NOTICE_TASK: Final = "worker.tasks.mail_link_notice"
RESEARCH_TASK: Final = "worker.tasks.research"
INDEX_DATASET_TASK: Final = "worker.tasks.index_dataset"

TASK_NAMES: frozenset[str] = frozenset(
    {
        RUN_TASK,
        RESET_TASK,
        INVITATION_TASK,
        LINK_NOTICE_TASK,
        RESEARCH_TASK,
        INDEX_DATASET_TASK,
        "worker.tasks.ping",
    }
)
"""Every task that may be enqueued, by dotted name; a worker refuses any other."""

FAILURE_TTL_SECONDS: Final = 86_400
TASK_TIMEOUT_SECONDS: Final = 600
INDEX_TIMEOUT_SECONDS: Final = 3600
MOST_RINGS_AT_ONCE: Final = 256

# Ringing twice for the same attempt pushes once, unless the first ring is over.
RING_SCRIPT: Final = b"""
local state = redis.call('HGET', KEYS[1], 'status')
if state == 'queued' or state == 'started' then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('SADD', 'rq:queues', KEYS[2])
redis.call('RPUSH', KEYS[2], ARGV[1])
return 1
"""


class UnknownTask(ValueError):
    """The name is not in `TASK_NAMES`: only known tasks may be enqueued."""


class RunQueue:
    """One per process. Safe to use from many threads or greenlets at once."""

    def __init__(self, redis: Redis, *, task_names: Iterable[str] = ()) -> None:
        self._redis = redis
        self._task_names = TASK_NAMES | frozenset(task_names)
        self._queues = {
            name: Queue(name, connection=redis, serializer=JSONSerializer) for name in QUEUES
        }
        self._idle_askers: list[Asker] = []
        self._rings: deque[_Ring] = deque()
        self._lock = threading.Lock()  # never held while Redis is asked
        self._is_sending = False

    def ring(
        self, run_id: str, *, timeout_seconds: int, attempt: int | str = 1, queue: str = RUNS
    ) -> bool:
        """Have a worker execute this run; False if it was already rung for and is not over.

        One round trip; calls made while another is under way share the next one.
        Raises redis.RedisError, after which the reaper will ring.
        """
        ring = _Ring(ring_job_id(run_id, attempt), run_id, queue, timeout_seconds)
        leads = self._queue_up(ring)
        try:
            if not leads:
                ring.woken.wait()
            if not ring.is_sent:
                self._send_rings()
        finally:
            self._pass_on(ring, leads)
        if ring.error is not None:
            raise ring.error
        return ring.is_new

    def ring_all(
        self, run_ids: Iterable[str], *, timeout_seconds: int, queue: str = RUNS
    ) -> None:
        """Ring for the first attempt at each of these, in one round trip.

        Raises redis.RedisError, after which the reaper will ring.
        """
        rings = [_Ring(ring_job_id(one, 1), one, queue, timeout_seconds) for one in run_ids]
        if rings:
            self._send(rings)
        for ring in rings:
            if ring.error is not None:
                raise ring.error

    def enqueue(
        self,
        name: str,
        *args: str | int,
        queue: str = DEFAULT,
        job_id: str | None = None,
        at: datetime | None = None,
        timeout_seconds: int = TASK_TIMEOUT_SECONDS,
    ) -> str | None:
        """Have a worker call a task by dotted name, now or `at` a time; gives the job's id.

        With a `job_id` that is already waiting, nothing happens and None comes back.
        Raises UnknownTask for a name that is not in `TASK_NAMES`, and redis.RedisError.
        """
        if name not in self._task_names:
            raise UnknownTask(f"{name!r} is not a task that may be enqueued.")
        target = self._queues[queue]
        job = target.create_job(
            name,
            args=args,
            timeout=timeout_seconds,
            result_ttl=0,
            failure_ttl=FAILURE_TTL_SECONDS,
            job_id=job_id,
            description=name,
        )
        try:
            if at is None:
                target.enqueue_job(job, unique=job_id is not None)
            else:
                target.schedule_job(job, at, unique=job_id is not None)
        except DuplicateJobError:
            return None
        return job.id

    def _queue_up(self, ring: _Ring) -> bool:
        """Put a ring in line. True when its caller sends, because nobody else is sending."""
        with self._lock:
            self._rings.append(ring)
            leads = not self._is_sending
            self._is_sending = True
        return leads

    def _pass_on(self, ring: _Ring, leads: bool) -> None:
        """Let the next in line send. Also when this caller was killed while it waited."""
        with self._lock:
            if not ring.is_sent and ring in self._rings:
                self._rings.remove(ring)
            if not (leads or ring.was_chosen):
                return
            self._is_sending = bool(self._rings)
            if self._rings:
                self._rings[0].was_chosen = True
                self._rings[0].woken.set()

    def _send_rings(self) -> None:
        """One round trip for all that wait."""
        with self._lock:
            count = min(len(self._rings), MOST_RINGS_AT_ONCE)
            batch = [self._rings.popleft() for _ in range(count)]
        try:
            self._send(batch)
        except BaseException:
            # This caller is killed, and not the others: the next in line sends theirs again.
            with self._lock:
                self._rings.extendleft(ring for ring in reversed(batch) if not ring.is_sent)
            raise

    def _send(self, batch: list[_Ring]) -> None:
        at = utcformat(datetime.now(UTC)).encode()
        try:
            replies = self._ask(b"".join([ring.packed(at) for ring in batch]), len(batch))
            for ring, reply in zip(batch, replies, strict=True):
                ring.settle(reply)
        except OSError as error:
            for ring in batch:
                ring.settle(RedisConnectionError(str(error)))

    def _ask(self, packed: bytes, count: int) -> list[Any]:
        """One round trip, on a connection that nobody else uses meanwhile."""
        try:
            asker = self._idle_askers.pop()
        except IndexError:
            asker = Asker(self._redis.connection_pool)
        try:
            return asker.ask(packed, count)
        finally:
            self._idle_askers.append(asker)


class _Ring:
    """One caller's ring, sent by whoever holds the lock."""

    __slots__ = (
        "error", "is_new", "is_sent", "job_id", "queue", "run_id", "timeout_seconds",
        "was_chosen", "woken",
    )  # fmt: skip

    def __init__(self, job_id: str, run_id: str, queue: str, timeout_seconds: int) -> None:
        self.job_id = job_id
        self.run_id = run_id
        self.queue = queue
        self.timeout_seconds = timeout_seconds
        self.woken = threading.Event()
        self.was_chosen = False
        self.is_sent = False
        self.is_new = False
        self.error: Exception | None = None

    def settle(self, reply: Any) -> None:
        """Note Redis's answer, or why there is none."""
        self.is_sent = True
        if isinstance(reply, hiredis.ReplyError):
            self.error = ResponseError(str(reply))
        elif isinstance(reply, Exception):
            self.error = reply
        else:
            self.is_new = bool(reply)
        self.woken.set()

    def packed(self, at: bytes) -> bytes:
        """The command that saves the same job hash that RQ would, without building a Job."""
        call = json.dumps([RUN_TASK, None, [self.run_id], {}])
        queue, job_id = self.queue.encode(), self.job_id.encode()
        return pack(
            b"EVAL", RING_SCRIPT, b"2", b"rq:job:%b" % job_id, b"rq:queue:%b" % queue,
            job_id,
            b"data", zlib.compress(call.encode(), 1), b"status", b"queued", b"origin", queue,
            b"created_at", at, b"enqueued_at", at, b"description", RUN_TASK.encode(),
            b"timeout", b"%d" % self.timeout_seconds, b"result_ttl", b"0",
            b"failure_ttl", b"%d" % FAILURE_TTL_SECONDS,
        )  # fmt: skip


def ring_job_id(run_id: str, attempt: int | str) -> str:
    """The RQ job of one attempt at a run; for stopping it."""
    return f"run-{run_id}-{attempt}"
