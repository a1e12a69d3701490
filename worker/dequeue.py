"""Taking many jobs off a queue at once, in two round trips."""

from __future__ import annotations

import logging
from typing import Any, Final

from redis import Redis
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.job import Job
from rq.serializers import JSONSerializer

# The job that was waited for has been moved already; move up to ARGV[2] more, and read all.
TAKE_SCRIPT: Final = """
local ids = {ARGV[1]}
for i = 1, tonumber(ARGV[2]) do
  local id = redis.call('LMOVE', KEYS[1], KEYS[2], 'LEFT', 'RIGHT')
  if not id then break end
  ids[#ids + 1] = id
end
local taken = {}
for i, id in ipairs(ids) do taken[i] = {id, redis.call('HGETALL', ARGV[3] .. id)} end
return taken
"""

# Back to the front, unless another worker's cleaning was first.
RETURN_SCRIPT: Final = """
if redis.call('LREM', KEYS[2], 1, ARGV[1]) == 1 then redis.call('LPUSH', KEYS[1], ARGV[1]) end
"""

log = logging.getLogger(__name__)


def wait_for_job(waiting: Redis, queue: Queue, seconds: int) -> str | None:
    """Id of the first job, moved to the intermediate queue; None when none came in time."""
    found: Any = waiting.blmove(
        queue.key, queue.intermediate_queue_key, seconds, "LEFT", "RIGHT"
    )
    return found.decode() if found is not None else None


def take_jobs(redis: Redis, queue: Queue, first_id: str, more: int) -> list[Job]:
    """The first job and up to `more` others, read. Jobs that don't exist any more are dropped."""
    rows: Any = redis.eval(
        TAKE_SCRIPT, 2, queue.key, queue.intermediate_queue_key,
        first_id, more, Job.redis_job_namespace_prefix,
    )  # fmt: skip
    jobs = []
    for raw_id, fields in rows:
        job_id = raw_id.decode()
        job = _restore(redis, job_id, dict(zip(fields[::2], fields[1::2], strict=True)))
        if job is None:
            log.info("Job %s is gone, dropped", job_id)
            redis.lrem(queue.intermediate_queue_key, 1, job_id)
        else:
            jobs.append(job)
    return jobs


def give_back(redis: Redis, queue: Queue, job_id: str) -> None:
    """Return a job that was taken and not begun."""
    redis.eval(RETURN_SCRIPT, 2, queue.key, queue.intermediate_queue_key, job_id)


def _restore(redis: Redis, job_id: str, fields: dict[bytes, bytes]) -> Job | None:
    job = Job(job_id, connection=redis, serializer=JSONSerializer)
    try:
        job.restore(fields)
    except NoSuchJobError:
        return None
    return job
