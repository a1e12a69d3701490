"""Jobs that are taken and done: what lies in Redis is what RQ itself would have written."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from app.core.stream.wire import Asker
from worker.bookkeeping import record_done
from worker.dequeue import Taker, new_token

TTL = 9030  # rounded to hundreds, this and a minute more bear half a minute's delay


@pytest.fixture
def queue(redis_client: Redis) -> Queue:
    return Queue("runs", connection=redis_client, serializer=JSONSerializer)


@pytest.fixture
def taker(queue: Queue, redis_client: Redis) -> Taker:
    return Taker(redis_client.connection_pool, queue, "worker-1", TTL)


def enqueue(queue: Queue, *names: str) -> None:
    for name in names:
        queue.enqueue("time.monotonic", job_id=name, result_ttl=0)


def first_of(taker: Taker) -> str:
    found = taker.wait(1)
    assert found is not None
    return found


def kept(redis_client: Redis, job_id: str, execution_id: str) -> dict[str, Any]:
    """Every key that speaks of an execution, without moments in time."""
    moments = {b"created_at", b"last_heartbeat", b"started_at", b"enqueued_at"}
    found: dict[str, Any] = {}
    for key in redis_client.keys("rq:*"):
        general = key.decode().replace(job_id, "JOB").replace(execution_id, "EXECUTION")
        kind = redis_client.type(key)
        if kind == b"hash":
            fields = redis_client.hgetall(key)
            value: Any = sorted(
                (name, "moment" if name in moments else said) for name, said in fields.items()
            )
        elif kind == b"zset":
            value = redis_client.zrange(key, 0, -1)
        else:
            value = sorted(redis_client.sort(key, alpha=True))
        text = repr(value).replace(job_id, "JOB").replace(execution_id, "EXECUTION")
        found[general] = (text, round(redis_client.ttl(key), -2))
    return found


def test_a_job_that_is_taken_is_recorded_as_rq_records_it(
    taker: Taker, queue: Queue, redis_client: Redis
) -> None:
    enqueue(queue, "ours")
    (activity,) = taker.take(first_of(taker), 0, new_token())
    ours = kept(redis_client, "ours", activity.execution.id)
    redis_client.flushall()
    enqueue(queue, "theirs")
    queue.pop_job_id()
    job = Job.fetch("theirs", connection=redis_client, serializer=JSONSerializer)
    with redis_client.pipeline() as pipeline:
        execution = Execution.create(job, TTL, pipeline, "worker-1")
        job.prepare_for_execution("worker-1", pipeline)
        pipeline.persist(job.key)
        pipeline.execute()
    assert ours == kept(redis_client, "theirs", execution.id)
    assert (activity.job.worker_name, activity.job._status) == ("worker-1", JobStatus.STARTED)


def test_so_many_are_taken_as_there_is_room_for(taker: Taker, queue: Queue) -> None:
    enqueue(queue, "a", "b", "c", "d")
    taken = taker.take(first_of(taker), 2, new_token())
    assert [activity.job.id for activity in taken] == ["a", "b", "c"]
    assert len({activity.execution.id for activity in taken}) == 3
    assert queue.job_ids == ["d"]


def test_taking_the_first_again_after_a_lost_reply_takes_it_once(
    taker: Taker, queue: Queue, redis_client: Redis
) -> None:
    enqueue(queue, "a")
    first, token = first_of(taker), new_token()
    (once,) = taker.take(first, 0, token)
    (again,) = taker.take(first, 0, token)
    assert again.execution.id == once.execution.id
    assert redis_client.zcard("rq:wip:runs") == 1


def test_a_job_that_is_gone_is_dropped_without_a_trace(
    taker: Taker, queue: Queue, redis_client: Redis
) -> None:
    enqueue(queue, "a")
    redis_client.delete("rq:job:a")
    assert taker.take(first_of(taker), 0, new_token()) == []
    assert redis_client.keys("rq:*") == [b"rq:queues"]


def test_of_a_job_that_is_done_nothing_is_left(
    taker: Taker, queue: Queue, redis_client: Redis
) -> None:
    enqueue(queue, "a", "b")
    taken = taker.take(first_of(taker), 1, new_token())
    assert record_done(Asker(redis_client.connection_pool), "worker-1", taken) == []
    assert sorted(redis_client.keys("rq:*")) == [b"rq:queues", b"rq:worker:worker-1"]
    assert redis_client.hget("rq:worker:worker-1", "successful_job_count") == b"2"


def test_a_job_that_others_wait_for_is_left_to_rq(
    taker: Taker, queue: Queue, redis_client: Redis
) -> None:
    enqueue(queue, "a", "b")
    queue.enqueue("time.monotonic", job_id="later", depends_on="b")
    taken = taker.take(first_of(taker), 1, new_token())
    left = record_done(Asker(redis_client.connection_pool), "worker-1", taken)
    assert [activity.job.id for activity in left] == ["b"]
    assert redis_client.exists("rq:job:b")
    assert not redis_client.exists("rq:job:a")
