"""Cost of the token path and of the RQ worker: CPU per token, jobs a second, cost of a ring.

`python -m benchmarks.stream_path [tokens|jobs|ring] [--streams 64 --gap-ms 10 …]`

The token part runs a writer and a hub in processes of their own under gevent, paced like
engines (one token per stream and gap), and reports each process's CPU time per token.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from tempfile import TemporaryDirectory  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
from redis import Redis  # noqa: E402
from rq import Queue  # noqa: E402
from rq.serializers import JSONSerializer  # noqa: E402

from app.core.embedded_redis import EmbeddedRedis  # noqa: E402
from app.core.queue import RunQueue  # noqa: E402
from app.core.stream import TEXT, StreamHub, StreamWriter  # noqa: E402

ROOT = Path(__file__).parents[1]


def cpu_seconds() -> float:
    """CPU time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def redis_cpu_seconds(pid: int) -> float:
    """CPU time of the Redis process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def write_tokens(url: str, streams: int, tokens: int, gap_ms: float) -> None:
    """The worker's side: every stream writes a token per gap, its send time inside."""
    writer = StreamWriter(url)

    def one(number: int) -> None:
        gevent.sleep(gap_ms / 1000 * number / streams)
        started = time.monotonic()
        run_id = f"bench-{number}"
        for token in range(tokens):
            writer.write(run_id, TEXT, f"{time.monotonic():.6f} ", reply_to="weft:web:bench")
            gevent.sleep(max(0.0, started + (token + 1) * gap_ms / 1000 - time.monotonic()))
        writer.end(run_id, {"state": "succeeded"}, reply_to="weft:web:bench")

    before = cpu_seconds()
    gevent.joinall([gevent.spawn(one, number) for number in range(streams)])
    writer.close(30)
    print(json.dumps({"cpu": cpu_seconds() - before}))


def pace_only(streams: int, tokens: int, gap_ms: float) -> float:
    """CPU of the pacing itself, to take off the writer's."""

    def one(number: int) -> None:
        gevent.sleep(gap_ms / 1000 * number / streams)
        started = time.monotonic()
        for token in range(tokens):
            f"{time.monotonic():.6f} ".encode()
            gevent.sleep(max(0.0, started + (token + 1) * gap_ms / 1000 - time.monotonic()))

    before = cpu_seconds()
    gevent.joinall([gevent.spawn(one, number) for number in range(streams)])
    return cpu_seconds() - before


def read_tokens(url: str, streams: int) -> None:
    """The web's side: one reader per stream."""
    hub = StreamHub(url, hub_id="bench")
    hub.start()
    hub.wait_ready(10)
    late: list[float] = []
    events = 0

    def one(number: int) -> None:
        nonlocal events
        with hub.subscribe(f"bench-{number}", replay=False) as reader:
            for event in reader:
                events += 1
                if event.kind == TEXT:
                    now = time.monotonic()
                    late.extend(now - float(sent) for sent in event.value.split())

    readers = [gevent.spawn(one, number) for number in range(streams)]
    print("ready", flush=True)
    before = cpu_seconds()
    gevent.joinall(readers)
    spent = cpu_seconds() - before
    late.sort()
    print(
        json.dumps(
            {
                "cpu": spent, "tokens": len(late), "events": events,
                "p50_ms": late[len(late) // 2] * 1000, "p99_ms": late[len(late) * 99 // 100] * 1000,
            }
        )
    )  # fmt: skip


def _spawn(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.stream_path", *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _last_line(process: subprocess.Popen[str]) -> dict[str, Any]:
    out = process.communicate()[0]
    found: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return found


def measure_tokens(streams: int, tokens: int, gap_ms: float) -> None:
    """One line of results."""
    with (
        TemporaryDirectory(prefix="weft-bench-") as folder,
        EmbeddedRedis(Path(folder), append_only=False) as server,
    ):
        reader = _spawn("read", "--url", server.url, "--streams", streams)
        assert reader.stdout is not None
        reader.stdout.readline()
        common = ("--streams", streams, "--tokens", tokens, "--gap-ms", gap_ms)
        before = redis_cpu_seconds(server.pid or 0)
        writer = _spawn("write", "--url", server.url, *common)
        wrote, read = _last_line(writer), _last_line(reader)
        redis_cpu = redis_cpu_seconds(server.pid or 0) - before
    pacing = _last_line(_spawn("pace", *common))["cpu"]
    count = read["tokens"]
    print(
        f"streams {streams:4} gap {gap_ms:.0f} ms: "
        f"web {read['cpu'] / count * 1e6:.0f} us/token, "
        f"worker {(wrote['cpu'] - pacing) / count * 1e6:.0f} us/token "
        f"(pacing {pacing / count * 1e6:.0f} taken off), "
        f"redis {redis_cpu / count * 1e6:.0f} us/token, "
        f"tokens/event {count / read['events']:.1f}, "
        f"late p50 {read['p50_ms']:.2f} p99 {read['p99_ms']:.2f} ms, {count} tokens"
    )


def measure_jobs(count: int) -> None:
    """No-op jobs through one StreamWorker."""
    with (
        TemporaryDirectory(prefix="weft-bench-") as folder,
        EmbeddedRedis(Path(folder), append_only=False) as server,
    ):
        client = Redis.from_url(server.url)
        queue = Queue("runs", connection=client, serializer=JSONSerializer)
        data = [Queue.prepare_data("time.monotonic", result_ttl=0) for _ in range(count)]
        for start in range(0, count, 500):
            queue.enqueue_many(data[start : start + 500])
        worker = _spawn("work", "--url", server.url)
        while queue.count == count:
            gevent.sleep(0.001)
        began, left = time.monotonic(), queue.count
        while queue.count or queue.started_job_registry.get_job_count(cleanup=False):
            gevent.sleep(0.005)
        seconds = time.monotonic() - began
        stat = redis_cpu_seconds(worker.pid)
        worker.terminate()
        worker.wait()
        print(
            f"{left / seconds:.0f} no-op jobs/s, worker about {stat / count * 1e3:.2f} ms CPU/job"
        )


def measure_ring(count: int, at_once: int) -> None:
    """Rings from one process, with so many callers at once."""
    with (
        TemporaryDirectory(prefix="weft-bench-") as folder,
        EmbeddedRedis(Path(folder), append_only=False) as server,
    ):
        queue = RunQueue(Redis.from_url(server.url))
        queue.ring("warm", timeout_seconds=60)
        before, began = cpu_seconds(), time.monotonic()

        def ring(worker: int) -> None:
            for number in range(count // at_once):
                queue.ring(f"{worker}-{number}", timeout_seconds=60)

        gevent.joinall([gevent.spawn(ring, worker) for worker in range(at_once)])
        spent, seconds = cpu_seconds() - before, time.monotonic() - began
        print(
            f"{at_once} at once: {spent / count * 1e6:.0f} us CPU a ring, {count / seconds:.0f}/s"
        )


def run_worker(url: str) -> None:
    """The worker of `jobs`."""
    from worker.stream_worker import StreamWorker

    StreamWorker(url, slots={"runs": 512}).work()


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "what", choices=["tokens", "jobs", "ring", "write", "read", "pace", "work"]
    )
    parser.add_argument("--url", default="")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--gap-ms", type=float, default=10)
    parser.add_argument("--count", type=int, default=5000)
    given = parser.parse_args()
    if given.what == "tokens":
        measure_tokens(given.streams, given.tokens, given.gap_ms)
    elif given.what == "jobs":
        measure_jobs(given.count)
    elif given.what == "ring":
        for at_once in (1, 16, 64):
            measure_ring(given.count, at_once)
    elif given.what == "write":
        write_tokens(given.url, given.streams, given.tokens, given.gap_ms)
    elif given.what == "read":
        read_tokens(given.url, given.streams)
    elif given.what == "pace":
        print(json.dumps({"cpu": pace_only(given.streams, given.tokens, given.gap_ms)}))
    else:
        run_worker(given.url)


if __name__ == "__main__":
    main()
