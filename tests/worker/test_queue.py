"""The doorbell: what a ring leaves in Redis, and who understands it."""

from __future__ import annotations

import contextlib
import threading
from datetime import UTC, datetime, timedelta

import gevent
import pytest
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from app.core.embedded_redis import EmbeddedRedis
from app.core.queue import FAILURE_TTL_SECONDS, RUN_TASK, RunQueue, UnknownTask, ring_job_id
from tests.fixtures.waiting import eventually
from tests.worker.conftest import Jobs, StartWorker, wait_until
from worker.schedule import enqueue_due_jobs


@pytest.fixture
def run_queue(redis_client: Redis) -> RunQueue:
    return RunQueue(redis_client, task_names=["tests.worker.jobs.mark"])


def waiting(redis_client: Redis, name: str = "runs") -> list[str]:
    return Queue(name, connection=redis_client, serializer=JSONSerializer).job_ids


def test_a_ring_is_a_job_that_rq_understands(run_queue: RunQueue, redis_client: Redis) -> None:
    assert run_queue.ring("abc", timeout_seconds=300)
    assert waiting(redis_client) == ["run-abc-1"]
    job = Job.fetch("run-abc-1", connection=redis_client, serializer=JSONSerializer)
    assert (job.func_name, list(job.args), job.kwargs) == (RUN_TASK, ["abc"], {})
    assert (job.origin, job.timeout, job.result_ttl) == ("runs", 300, 0)
    assert (job.failure_ttl, job.get_status()) == (FAILURE_TTL_SECONDS, JobStatus.QUEUED)
    assert job.enqueued_at is not None


def test_ringing_twice_for_one_attempt_rings_once(
    run_queue: RunQueue, redis_client: Redis
) -> None:
    assert run_queue.ring("abc", timeout_seconds=300)
    assert not run_queue.ring("abc", timeout_seconds=300)
    assert run_queue.ring("abc", timeout_seconds=300, attempt=2)
    assert waiting(redis_client) == [ring_job_id("abc", 1), ring_job_id("abc", 2)]


def test_a_ring_that_failed_can_be_rung_again(run_queue: RunQueue, redis_client: Redis) -> None:
    run_queue.ring("abc", timeout_seconds=300)
    redis_client.lpop("rq:queue:runs")
    redis_client.hset(Job.key_for("run-abc-1"), "status", "failed")
    assert run_queue.ring("abc", timeout_seconds=300)
    assert waiting(redis_client) == ["run-abc-1"]


def test_rings_made_at_the_same_time_all_arrive(
    run_queue: RunQueue, redis_client: Redis
) -> None:
    results: list[bool] = []

    def ring(number: int) -> None:
        results.append(run_queue.ring(f"run{number}", timeout_seconds=300))

    threads = [threading.Thread(target=ring, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 100
    assert sorted(waiting(redis_client)) == sorted(f"run-run{n}-1" for n in range(100))


def test_callers_killed_while_they_ring_hold_up_nobody(
    run_queue: RunQueue, redis_client: Redis
) -> None:
    def ring(number: int) -> bool:
        return run_queue.ring(f"run{number}", timeout_seconds=300)

    for round_number in range(20):
        callers = [gevent.spawn(ring, round_number * 100 + number) for number in range(10)]
        for _ in range(round_number % 4):
            gevent.sleep(0)
        killed = callers[round_number % 3 : 9 : 2]
        gevent.killall(killed, block=False)
        gevent.joinall(callers, timeout=10, raise_error=True)
        assert all(caller.dead for caller in callers)
        left = {n for n, caller in enumerate(callers) if caller not in killed}
        rung = waiting(redis_client)
        assert all(rung.count(f"run-run{round_number * 100 + n}-1") == 1 for n in left)


def test_what_a_killed_caller_was_sending_for_others_is_sent_by_the_next(
    run_queue: RunQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, counts, results = run_queue._ask, list[int](), list[bool]()
    deaths = [threading.Event(), threading.Event()]

    def die_while_asking(packed: bytes, count: int) -> list[object]:
        counts.append(count)
        if len(counts) <= len(deaths):
            deaths[len(counts) - 1].wait(60)
            raise SystemExit
        return ask(packed, count)

    def ring(name: str) -> None:
        with contextlib.suppress(SystemExit):
            results.append(run_queue.ring(name, timeout_seconds=300))

    monkeypatch.setattr(run_queue, "_ask", die_while_asking)
    callers = [threading.Thread(target=ring, args=(name,)) for name in ("a", "b", "c")]
    for number, caller in enumerate(callers):
        caller.start()
        eventually(lambda n=number: counts == [1] and len(run_queue._rings) == n)
    deaths[0].set()
    eventually(lambda: counts == [1, 2])
    deaths[1].set()
    for caller in callers:
        caller.join(60)

    assert results == [True]


def test_a_ring_without_redis_says_so_and_the_next_one_works(own_redis: EmbeddedRedis) -> None:
    with Redis.from_url(own_redis.url) as client:
        run_queue = RunQueue(client)
        own_redis.stop()
        with pytest.raises(RedisError):
            run_queue.ring("abc", timeout_seconds=300)
        own_redis.start()
        assert run_queue.ring("abc", timeout_seconds=300)


def test_only_listed_tasks_can_be_enqueued(run_queue: RunQueue, redis_client: Redis) -> None:
    with pytest.raises(UnknownTask, match=r"os\.system"):
        run_queue.enqueue("os.system", "true")
    assert waiting(redis_client, "default") == []


def test_a_named_task_is_enqueued_once(run_queue: RunQueue, redis_client: Redis) -> None:
    first = run_queue.enqueue("tests.worker.jobs.mark", "x", "y", job_id="only-once")
    again = run_queue.enqueue("tests.worker.jobs.mark", "x", "y", job_id="only-once")
    assert (first, again) == ("only-once", None)
    assert waiting(redis_client, "default") == ["only-once"]


def test_a_task_for_later_waits_for_its_time(run_queue: RunQueue, redis_client: Redis) -> None:
    now = datetime.now(UTC)
    name = "tests.worker.jobs.mark"
    run_queue.enqueue(name, "x", "y", job_id="past", at=now - timedelta(seconds=5))
    run_queue.enqueue(name, "x", "y", job_id="future", at=now + timedelta(hours=1))
    assert waiting(redis_client, "default") == []
    assert enqueue_due_jobs(redis_client) == 1
    assert waiting(redis_client, "default") == ["past"]
    assert enqueue_due_jobs(redis_client) == 0


@pytest.mark.slow
def test_an_enqueued_task_is_done_by_a_worker(
    run_queue: RunQueue, jobs: Jobs, start_worker: StartWorker
) -> None:
    run_queue.enqueue("tests.worker.jobs.mark", jobs.url, "done")
    start_worker(jobs.url)
    wait_until(lambda: jobs.notes() == ["done"])
