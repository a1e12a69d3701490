"""Worker processes and queues for these tests."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.serializers import JSONSerializer

ROOT = Path(__file__).parents[2]


def wait_until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Wait for a condition; fail when it does not come true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("waited in vain")


class WorkerProcess:
    """A StreamWorker in a process of its own."""

    def __init__(self, log: Path, redis_url: str, **arguments: Any) -> None:
        arguments = {"redis_url": redis_url, "slots": {"runs": 256, "default": 8}, **arguments}
        self.log = log
        self._log_file = log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.worker.start_worker", json.dumps(arguments)],
            cwd=ROOT,
            stdout=self._log_file,
            stderr=subprocess.STDOUT,
        )

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 60.0) -> int:
        """Exit status."""
        return self.process.wait(seconds)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._log_file.close()


StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[StartWorker]:
    """Start workers; those left are killed after the test."""
    started: list[WorkerProcess] = []

    def start(url: str, **arguments: Any) -> WorkerProcess:
        worker = WorkerProcess(tmp_path / f"worker{len(started)}.log", url, **arguments)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.stop()


class Jobs:
    """Enqueues the test tasks and looks at what became of them."""

    def __init__(self, redis_url: str, queue: str = "runs") -> None:
        self.url = redis_url
        self.client = Redis.from_url(redis_url)
        self.queue = Queue(queue, connection=self.client, serializer=JSONSerializer)

    def add(self, task: str, *args: Any, **options: Any) -> str:
        options.setdefault("result_ttl", 0)
        job = self.queue.enqueue(f"tests.worker.jobs.{task}", *args, **options)
        return job.id

    def notes(self) -> list[str]:
        try:
            return [note.decode() for note in self.client.lrange("notes", 0, -1)]
        except RedisError:
            return []

    def failed(self) -> list[str]:
        return self.queue.failed_job_registry.get_job_ids(cleanup=False)

    def started(self) -> list[str]:
        return self.queue.started_job_registry.get_job_ids(cleanup=False)


@pytest.fixture
def jobs(redis_url: str) -> Iterator[Jobs]:
    found = Jobs(redis_url)
    yield found
    found.client.close()
