"""The worker's promises, each on a real worker process and a real Redis."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from rq import Worker
from rq.command import send_stop_job_command
from rq.job import Callback, Job, JobStatus
from rq.serializers import JSONSerializer

from app.core.embedded_redis import EmbeddedRedis
from tests.worker.conftest import Jobs, StartWorker, wait_until

pytestmark = pytest.mark.slow


def fetch(jobs: Jobs, job_id: str) -> Job:
    return Job.fetch(job_id, connection=jobs.client, serializer=JSONSerializer)


def test_two_hundred_jobs_run_at_once_and_leave_nothing(
    jobs: Jobs, start_worker: StartWorker
) -> None:
    ids = [jobs.add("meet", jobs.url, 200) for _ in range(200)]
    start_worker(jobs.url)
    wait_until(lambda: int(jobs.client.get("knew_itself") or 0) == 200)
    wait_until(lambda: not jobs.started())
    assert jobs.client.llen(jobs.queue.intermediate_queue_key) == 0
    assert not jobs.client.exists(*[Job.key_for(job_id) for job_id in ids])
    assert not list(jobs.client.scan_iter("rq:execution*"))
    assert jobs.failed() == []


def test_a_failing_job_is_in_the_failed_registry_with_its_traceback(
    jobs: Jobs, start_worker: StartWorker
) -> None:
    job_id = jobs.add("fail")
    start_worker(jobs.url)
    wait_until(lambda: jobs.failed() == [job_id])
    job = fetch(jobs, job_id)
    assert job.get_status() == JobStatus.FAILED
    assert "this job always fails" in (job.latest_result().exc_string or "")
    wait_until(lambda: not jobs.started())


def test_a_job_over_its_time_limit_fails_and_the_worker_goes_on(
    jobs: Jobs, start_worker: StartWorker
) -> None:
    late = jobs.add("wait_for", jobs.url, "never", job_timeout=1)
    start_worker(jobs.url)
    wait_until(lambda: jobs.failed() == [late])
    assert "maximum timeout" in (fetch(jobs, late).latest_result().exc_string or "")
    jobs.add("mark", jobs.url, "after")
    wait_until(lambda: "after" in jobs.notes())


def test_a_stopped_job_ends_and_the_others_do_not(
    jobs: Jobs, start_worker: StartWorker
) -> None:
    other = jobs.add("wait_for", jobs.url, "go")
    wanted = jobs.add("wait_for", jobs.url, "go")
    start_worker(jobs.url)
    wait_until(lambda: jobs.notes() == ["begun", "begun"])
    send_stop_job_command(jobs.client, wanted, serializer=JSONSerializer)
    wait_until(lambda: "stopped" in jobs.notes())
    wait_until(lambda: fetch(jobs, wanted).get_status() == JobStatus.STOPPED)
    jobs.client.set("go", 1)
    wait_until(lambda: "finished" in jobs.notes())
    assert other not in jobs.failed()


def test_several_jobs_stopped_at_the_same_time_all_count_as_stopped(
    jobs: Jobs, start_worker: StartWorker
) -> None:
    ids = [jobs.add("wait_for", jobs.url, "never") for _ in range(20)]
    start_worker(jobs.url)
    wait_until(lambda: jobs.notes().count("begun") == 20)
    for job_id in ids:
        send_stop_job_command(jobs.client, job_id, serializer=JSONSerializer)
    wait_until(lambda: len(jobs.failed()) == 20)
    assert {fetch(jobs, job_id).get_status() for job_id in ids} == {JobStatus.STOPPED}


@pytest.mark.parametrize("it_cleaned", [False, True])
def test_the_job_of_a_killed_worker_is_cleaned_up_by_another(
    jobs: Jobs, start_worker: StartWorker, it_cleaned: bool
) -> None:
    """Also when the dead one holds the lock of those who clean."""
    job_id = jobs.add("wait_for", jobs.url, "never")
    victim = start_worker(jobs.url, execution_ttl_seconds=2)
    # The record of a job's begin is written beside it. Before that, RQ takes minutes.
    wait_until(lambda: jobs.notes() == ["begun"] and jobs.started())
    victim.signal(signal.SIGKILL)
    victim.wait()
    jobs.client.delete(jobs.queue.registry_cleaning_key)
    if it_cleaned:
        assert jobs.queue.acquire_maintenance_lock()
    start_worker(jobs.url, maintenance_seconds=1)
    wait_until(lambda: jobs.failed() == [job_id])
    assert "AbandonedJobError" in (fetch(jobs, job_id).latest_result().exc_string or "")


def test_a_job_longer_than_the_execution_ttl_is_kept_alive(
    jobs: Jobs, start_worker: StartWorker
) -> None:
    jobs.add("wait_for", jobs.url, "go")
    start_worker(jobs.url, execution_ttl_seconds=4, beat_seconds=0.3, maintenance_seconds=1)
    wait_until(lambda: jobs.notes() == ["begun"] and jobs.started())
    (member,) = jobs.client.zrange(jobs.queue.started_job_registry.key, 0, -1)
    first = jobs.client.zscore(jobs.queue.started_job_registry.key, member)
    # Its first expiry is over and a round of cleaning has passed when it was moved so far.
    wait_until(
        lambda: (
            (jobs.client.zscore(jobs.queue.started_job_registry.key, member) or 0) > first + 5
        )
    )
    assert jobs.failed() == []
    jobs.client.set("go", 1)
    wait_until(lambda: "finished" in jobs.notes())


def test_sigterm_lets_jobs_finish_and_takes_no_more(
    jobs: Jobs, start_worker: StartWorker
) -> None:
    jobs.add("wait_for", jobs.url, "go")
    worker = start_worker(jobs.url)
    wait_until(lambda: jobs.notes() == ["begun"])
    worker.signal(signal.SIGTERM)
    wait_until(lambda: b"stops; 1 jobs" in worker.log.read_bytes())
    late = jobs.add("mark", jobs.url, "too late")
    jobs.client.set("go", 1)
    assert worker.wait() == 0
    assert jobs.notes() == ["begun", "finished"]
    assert jobs.queue.job_ids == [late]
    assert Worker.all(connection=jobs.client) == []


def test_jobs_that_outlast_the_grace_period_are_told_so(
    jobs: Jobs, start_worker: StartWorker
) -> None:
    job_id = jobs.add("wait_for", jobs.url, "never")
    worker = start_worker(jobs.url, grace_seconds=0.5)
    wait_until(lambda: jobs.notes() == ["begun"])
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 3
    assert jobs.notes() == ["begun", "worker stopping"]
    assert jobs.failed() == [job_id]


def test_a_second_signal_does_not_wait_for_the_grace_period(
    jobs: Jobs, start_worker: StartWorker
) -> None:
    jobs.add("wait_for", jobs.url, "never")
    worker = start_worker(jobs.url, grace_seconds=600)
    wait_until(lambda: jobs.notes() == ["begun"])
    worker.signal(signal.SIGINT)
    wait_until(lambda: b"stops; 1 jobs" in worker.log.read_bytes())
    worker.signal(signal.SIGINT)
    assert worker.wait() == 3
    assert jobs.notes() == ["begun", "worker stopping"]


def test_the_worker_outlives_a_killed_redis(
    own_redis: EmbeddedRedis, start_worker: StartWorker, tmp_path: Path
) -> None:
    jobs = Jobs(own_redis.url)
    flag = tmp_path / "flag"
    running = jobs.add("wait_without_redis", str(flag))
    worker = start_worker(own_redis.url)
    wait_until(lambda: jobs.started() == [running])
    own_redis.kill()
    flag.touch()
    wait_until(lambda: b"Redis is away" in worker.log.read_bytes())
    own_redis.start()
    jobs.add("mark", own_redis.url, "after")
    wait_until(lambda: "after" in jobs.notes())
    wait_until(lambda: jobs.started() == [])
    assert worker.process.poll() is None
    send_stop = jobs.add("wait_for", own_redis.url, "never")
    wait_until(lambda: "begun" in jobs.notes())
    wait_until(lambda: jobs.client.pubsub_numsub(*_command_channels(jobs))[0][1] == 1)
    send_stop_job_command(jobs.client, send_stop, serializer=JSONSerializer)
    wait_until(lambda: "stopped" in jobs.notes())
    jobs.client.close()


def _command_channels(jobs: Jobs) -> list[str]:
    return [worker.pubsub_channel_name for worker in Worker.all(connection=jobs.client)]


def test_a_worker_can_be_stopped_while_redis_is_away(
    own_redis: EmbeddedRedis, start_worker: StartWorker
) -> None:
    jobs = Jobs(own_redis.url)
    worker = start_worker(own_redis.url)
    wait_until(lambda: len(Worker.all(connection=jobs.client)) == 1)
    own_redis.kill()
    worker.signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    jobs.client.close()


def test_a_worker_that_redis_forgot_signs_up_again(
    own_redis: EmbeddedRedis, start_worker: StartWorker
) -> None:
    jobs = Jobs(own_redis.url)
    start_worker(own_redis.url, beat_seconds=0.2)
    wait_until(lambda: len(Worker.all(connection=jobs.client)) == 1)
    jobs.client.flushall()
    wait_until(lambda: len(Worker.all(connection=jobs.client)) == 1)
    jobs.client.close()


def test_a_worker_starts_before_its_redis(
    own_redis: EmbeddedRedis, start_worker: StartWorker
) -> None:
    own_redis.stop()
    worker = start_worker(own_redis.url)
    wait_until(lambda: b"Redis is away" in worker.log.read_bytes())
    own_redis.start()
    jobs = Jobs(own_redis.url)
    jobs.add("mark", own_redis.url, "done")
    wait_until(lambda: jobs.notes() == ["done"])
    jobs.client.close()


def test_jobs_with_callbacks_results_and_dependents_end_as_rq_ends_them(
    jobs: Jobs, start_worker: StartWorker
) -> None:
    first = jobs.add(
        "mark",
        jobs.url,
        "first",
        on_success=Callback("tests.worker.jobs.callback"),
        result_ttl=60,
    )
    kept = jobs.add("mark", jobs.url, "kept", result_ttl=60)
    jobs.add("mark", jobs.url, "dependent", depends_on=kept)
    start_worker(jobs.url)
    wait_until(lambda: sorted(jobs.notes()) == ["callback", "dependent", "first", "kept"])
    wait_until(lambda: fetch(jobs, kept).get_status() == JobStatus.FINISHED)
    wait_until(lambda: fetch(jobs, first).get_status() == JobStatus.FINISHED)
    assert set(jobs.queue.finished_job_registry.get_job_ids()) == {first, kept}


def test_only_known_tasks_are_called(jobs: Jobs, start_worker: StartWorker) -> None:
    refused = jobs.add("mark", jobs.url, "refused")
    allowed = "tests.worker.jobs.nothing"
    start_worker(jobs.url, task_names=[allowed])
    wait_until(lambda: jobs.failed() == [refused])
    assert jobs.notes() == []


def test_a_flood_in_one_queue_does_not_hold_up_another(
    jobs: Jobs, start_worker: StartWorker
) -> None:
    for _ in range(30):
        jobs.add("wait_for", jobs.url, "go")
    start_worker(jobs.url, slots={"runs": 10, "default": 2})
    wait_until(lambda: jobs.notes().count("begun") == 10)
    other = Jobs(jobs.url, queue="default")
    other.add("mark", jobs.url, "other")
    wait_until(lambda: "other" in jobs.notes())
    other.client.close()
    assert jobs.notes().count("begun") == 10
    jobs.client.set("go", 1)
    wait_until(lambda: jobs.notes().count("finished") == 30)
