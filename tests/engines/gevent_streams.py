"""Run by test_http: many streams at once in one gevent thread."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import socket  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[2]))

from app.core.engines.http import HttpClient, Request  # noqa: E402
from app.core.urls import parse_url  # noqa: E402
from tests.fakes.http_server import Exchange, FakeServer  # noqa: E402

STREAMS = 200


def main() -> None:
    waiting = []

    def handle(exchange: Exchange) -> None:
        exchange.start_stream()
        exchange.chunk(b"first\n")
        waiting.append(exchange)
        while len(waiting) < STREAMS:  # nobody gets a second line before all have a first
            exchange.wait(0.02)
        exchange.chunk(b"second\n")
        exchange.end_stream()

    client = HttpClient(
        lambda host, port, timeout: socket.create_connection((host, port), timeout)
    )
    with FakeServer(handle) as server:
        url = parse_url(server.url)

        def read() -> list[bytes]:
            return list(client.send(Request(url)).lines())

        jobs = [gevent.spawn(read) for _ in range(STREAMS)]
        gevent.joinall(jobs, timeout=60)
        right = sum(job.value == [b"first", b"second"] for job in jobs)
        sys.stdout.write(f"{right} streams, {server.counts.opened} connections\n")
        client.close()


main()
