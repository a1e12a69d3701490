"""Tasks for the worker tests. They tell of themselves through Redis."""

from __future__ import annotations

import time

from redis import Redis
from rq import get_current_job

from worker.penalty import JobStopped, WorkerStopping


def note(redis_url: str, word: str) -> None:
    """Leave a word in the list `notes`."""
    with Redis.from_url(redis_url) as client:
        client.rpush("notes", word)


def nothing() -> None:
    """Return at once."""


def mark(redis_url: str, word: str) -> None:
    """Leave a word and return."""
    note(redis_url, word)


def meet(redis_url: str, expected: int) -> None:
    """Return when `expected` jobs are in here at the same time."""
    job = get_current_job()
    with Redis.from_url(redis_url) as client:
        client.incr("met")
        deadline = time.monotonic() + 30
        while int(client.get("met") or 0) < expected and time.monotonic() < deadline:
            time.sleep(0.05)
        if get_current_job() is job:
            client.incr("knew_itself")


def fail() -> None:
    """Fail."""
    raise ValueError("this job always fails")


def wait_for(redis_url: str, key: str) -> None:
    """Say `begun`, wait until a key exists, say `finished`; tell how it ended otherwise."""
    note(redis_url, "begun")
    try:
        with Redis.from_url(redis_url) as client:
            while not client.exists(key):
                time.sleep(0.02)
    except JobStopped:
        note(redis_url, "stopped")
        raise
    except WorkerStopping:
        note(redis_url, "worker stopping")
        raise
    note(redis_url, "finished")


def wait_without_redis(path: str) -> None:
    """Wait until a file exists."""
    from pathlib import Path

    while not Path(path).exists():
        time.sleep(0.02)


def callback(job: object, connection: Redis, result: object) -> None:
    """A success callback."""
    connection.rpush("notes", "callback")
