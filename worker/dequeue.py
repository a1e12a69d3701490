"""Taking many jobs off a queue at once: begun and read in the same round trip."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

from redis import ConnectionPool
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.executions import WORKER_EXECUTIONS_KEY_TEMPLATE, Execution
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.utils import now, utcformat

from app.core.stream.wire import Asker
from worker.bookkeeping import Activity

# The job that was waited for has been moved already; more are taken, up to ARGV[2]. Each is
# marked as RQ marks a job that begins (`Execution.create`, `Job.prepare_for_execution`), in the
# same step: a worker that is killed leaves no job half taken. Safe to repeat for the first.
TAKE_SCRIPT: Final = b"""
local id, more, token, worker = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local seconds, text, ttl, expires = ARGV[5], ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local taken = {}
redis.call('LREM', KEYS[2], 1, id)
while id do
  local job, execution = 'rq:job:' .. id, string.format('%s%04x', token, #taken)
  taken[#taken + 1] = {id, execution, redis.call('HGETALL', job)}
  if redis.call('HEXISTS', job, 'data') == 1 then
    local both = id .. ':' .. execution
    local hash, executions = 'rq:execution:' .. both, 'rq:executions:' .. id
    redis.call('HSET', hash, 'id', execution, 'job_id', id, 'created_at', seconds,
      'last_heartbeat', seconds, 'worker_name', worker)
    redis.call('EXPIRE', hash, ttl)
    redis.call('ZADD', executions, expires + 60, execution)
    redis.call('EXPIRE', executions, ttl + 60)
    redis.call('ZADD', KEYS[3], expires, both)
    redis.call('SADD', KEYS[4], both)
    redis.call('HSET', job, 'status', 'started', 'started_at', text, 'last_heartbeat', text,
      'worker_name', worker)
    redis.call('PERSIST', job)
  end
  id = #taken <= more and redis.call('LPOP', KEYS[1])
end
redis.call('EXPIRE', KEYS[4], ttl + 60)
return taken
"""

# Back to the front, unless another worker's cleaning was first.
RETURN_SCRIPT: Final = b"""
if redis.call('LREM', KEYS[2], 1, ARGV[1]) == 1 then redis.call('LPUSH', KEYS[1], ARGV[1]) end
"""

log = logging.getLogger(__name__)


class Taker:
    """Takes jobs off one queue for one worker, over a connection of its own."""

    def __init__(
        self, pool: ConnectionPool, queue: Queue, worker_name: str, ttl_seconds: int
    ) -> None:
        self.queue = queue
        self._asker = Asker(pool)
        self._worker_name = worker_name
        self._ttl_seconds = ttl_seconds
        self._key = queue.key.encode()
        self._intermediate_key = queue.intermediate_queue_key.encode()
        self._started_key = queue.started_job_registry.key.encode()
        self._executions_key = WORKER_EXECUTIONS_KEY_TEMPLATE.format(worker_name).encode()

    def wait(self, seconds: int) -> str | None:
        """Id of the first job, moved to the intermediate queue; None when none came in time.

        Raises OSError, as the others do.
        """
        found = self._asker.ask_one(
            b"BLMOVE", self._key, self._intermediate_key, b"LEFT", b"RIGHT", b"%d" % seconds
        )
        return found.decode() if found is not None else None

    def take(self, first_id: str, more: int, token: str) -> list[Activity]:
        """The first job and up to `more` others, begun. Those that don't exist are dropped.

        `token` is `new_token()`; to be repeated with the same.
        """
        at = now()
        expires = int(at.timestamp()) + self._ttl_seconds
        rows: Any = self._asker.ask_one(
            b"EVAL", TAKE_SCRIPT, b"4", self._key, self._intermediate_key, self._started_key,
            self._executions_key, first_id.encode(), b"%d" % more, token.encode(),
            self._worker_name.encode(), repr(at.timestamp()).encode(), utcformat(at).encode(),
            b"%d" % self._ttl_seconds, b"%d" % expires,
        )  # fmt: skip
        found = [self._activity(job, execution, fields, at) for job, execution, fields in rows]
        return [activity for activity in found if activity is not None]

    def give_back(self, job_id: str) -> None:
        """Return a job that was waited for and not taken."""
        self._asker.ask_one(
            b"EVAL", RETURN_SCRIPT, b"2", self._key, self._intermediate_key, job_id.encode()
        )

    def _activity(
        self, raw_id: bytes, raw_execution: bytes, fields: list[bytes], at: datetime
    ) -> Activity | None:
        job = Job(raw_id.decode(), connection=self.queue.connection, serializer=JSONSerializer)
        try:
            job.restore(dict(zip(fields[::2], fields[1::2], strict=True)))
        except NoSuchJobError:
            log.info("Job %s is gone, dropped", job.id)
            return None
        job.worker_name, job._status = self._worker_name, JobStatus.STARTED
        job.started_at = job.last_heartbeat = at
        execution: Any = Execution(
            raw_execution.decode(), job.id, job.connection, self._worker_name
        )
        execution.created_at = execution.last_heartbeat = at
        return Activity(job, self.queue, execution)


def new_token() -> str:
    """What the names of the executions that are taken together begin with."""
    return uuid4().hex[:28]
