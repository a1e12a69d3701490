"""`python -m worker` as `make run` starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from redis import Redis
from rq import Worker

from app.core.queue import RunQueue
from tests.worker.conftest import ROOT, wait_until


@pytest.mark.slow
def test_the_worker_process_starts_works_its_schedule_and_stops(
    redis_url: str, redis_client: Redis, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "REDIS_URL": redis_url,
        "DATABASE_URL": f"sqlite:///{tmp_path / 'weft.db'}",
        "WEFT_DATA_DIR": str(tmp_path),
    }
    with (tmp_path / "log").open("wb") as log_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker"],
            cwd=ROOT, env=environment, stdout=log_file, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            wait_until(lambda: len(Worker.all(connection=redis_client)) == 1)
            channels = ["weft:control"]
            wait_until(lambda: redis_client.pubsub_numsub(*channels)[0][1] == 1)
            # A refused task for later: the schedule moves it, the worker fails it by name.
            at = datetime.now(UTC) - timedelta(seconds=1)
            queue = RunQueue(redis_client, task_names=["tests.worker.jobs.nothing"])
            queue.enqueue("tests.worker.jobs.nothing", job_id="later", at=at)
            wait_until(lambda: redis_client.zscore("rq:failed:default", "later") is not None)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
    assert Worker.all(connection=redis_client) == []
