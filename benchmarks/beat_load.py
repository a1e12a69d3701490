"""Sends heartbeats over kept-open connections and counts what is answered. A process of its own.

`python -m benchmarks.beat_load HOST PORT TOKENS_FILE CONNECTIONS SECONDS COUNT` prints a JSON
report; it ends after SECONDS or COUNT beats (0: no limit), whichever is first.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from dataclasses import dataclass, field  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402

BEAT = {
    "cpu_usage": 23.4, "memory_usage": 61.2, "disk_usage": 40.1, "network_rx": 1,
    "network_tx": 1, "uptime_seconds": 86400.5,
    "devices": [
        {"index": index, "name": "NVIDIA GeForce RTX 4090", "vendor_id": 4318,
         "device_id": 9860, "memory_gb": 24.0, "usage": 97.0, "mem_usage": 81.5, "temp": 71.0,
         "power_usage": 401.5, "power_limit_w": 450.0}
        for index in range(2)
    ],
    "replicas": [{"model_name": "llama", "state": "ready", "running": 12, "waiting": 0}],
}  # fmt: skip


@dataclass
class Load:
    """What all connections share."""

    host: str
    port: int
    tokens: list[str]
    ends_at: float
    left: int
    answered: int = 0
    refused: int = 0
    seconds: list[float] = field(default_factory=list)

    def may_send(self) -> bool:
        """Whether there is another beat to send."""
        if self.left == 0 or time.perf_counter() >= self.ends_at:
            return False
        self.left -= 1
        return True


def request(load: Load, token: str, sequence: int) -> bytes:
    """One heartbeat as it goes over the wire."""
    body = json.dumps({"sequence": sequence, **BEAT}, separators=(",", ":")).encode()
    head = (
        f"POST /agent/v1/heartbeat HTTP/1.1\r\nHost: {load.host}:{load.port}\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def send(load: Load, own: list[str]) -> None:
    """Beat in turn for the nodes of this connection, each time when the last was answered."""
    connection = socket.create_connection((load.host, load.port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    number = time.time_ns() // 1_000_000  # a later load's sequences are not an earlier one's
    with connection:
        while load.may_send():
            number += 1
            message = request(load, own[number % len(own)], number)
            began = time.perf_counter()
            connection.sendall(message)
            if read_status(connection) == 200:
                load.answered += 1
                load.seconds.append(time.perf_counter() - began)
            else:
                load.refused += 1


def read_status(connection: socket.socket) -> int:
    """Read one answer whole; gives its status."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        body += _more(connection)
    return int(head.split(b" ", 2)[1])


def _more(connection: socket.socket) -> bytes:
    found = connection.recv(65536)
    if not found:
        raise ConnectionError("the server closed the connection")
    return found


def main() -> None:
    """Run the load that the arguments describe."""
    host, port, tokens, connections, seconds, count = sys.argv[1:]
    load = Load(
        host, int(port), Path(tokens).read_text().split(),
        time.perf_counter() + float(seconds), int(count) or -1,
    )  # fmt: skip
    began = time.perf_counter()
    number = int(connections)
    gevent.joinall(
        [gevent.spawn(send, load, load.tokens[i::number]) for i in range(number)],
        raise_error=True,
    )
    took = time.perf_counter() - began
    times = sorted(load.seconds)
    report = {
        "answered": load.answered, "refused": load.refused, "seconds": took,
        "beats_per_s": load.answered / took,
        "p50_ms": times[len(times) // 2] * 1000, "p99_ms": times[len(times) * 99 // 100] * 1000,
    }  # fmt: skip
    print(json.dumps(report))


if __name__ == "__main__":
    main()
