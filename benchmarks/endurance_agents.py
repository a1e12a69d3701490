"""Agents for the endurance run: each beats on time and sends again what was not answered."""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import gevent

from benchmarks.fast_clock import FastClock

BUCKET_SECONDS = 120
DEVICES = 2
ANSWER_SECONDS = 10.0
SHORTEST_WAIT = 0.5
# Real agents beat every 30 s; here everything is as much faster.
REAL_PERIOD = 30.0
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
# Beats are sent near the middle of a bucket, so that there is no doubt in which they count.
EARLIEST, LATEST = 0.3, 0.6


@dataclass
class Sent:
    """One beat: the buckets in which it may have reached the hub, and whether it was answered."""

    number: int
    buckets: set[int] = field(default_factory=set)
    tries: int = 0
    is_answered: bool = False


@dataclass
class SimulatedAgent:
    """One node's agent. `period` and all waits are real seconds."""

    port: int
    token: str
    client_id: str
    clock: FastClock
    period: float
    sent: list[Sent] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    connection: http.client.HTTPConnection | None = None

    def run(self, is_over: Callable[[], bool]) -> None:
        """Beat once a period until it is over; the last beat is sent until it is answered."""
        number = time.time_ns() // 1_000_000
        due = self._next_due(time.time())
        while not is_over():
            gevent.sleep(max(0.0, due - time.time()))
            number += 1
            self._deliver(Sent(number))
            due = self._next_due(max(due, time.time() - self.period))
        if self.connection is not None:
            self.connection.close()

    def _next_due(self, after: float) -> float:
        """A moment in the middle of the next bucket (or period, whichever is longer)."""
        bucket = BUCKET_SECONDS / self.clock.factor
        at = (self.clock.at(after) // BUCKET_SECONDS + 1) * BUCKET_SECONDS
        start = self.clock.began + (at - self.clock.showed) / self.clock.factor
        skipped = max(0.0, self.period - bucket)
        return start + skipped + bucket * random.uniform(EARLIEST, LATEST)

    def _deliver(self, beat: Sent) -> None:
        self.sent.append(beat)
        scale = self.period / REAL_PERIOD
        wait = FIRST_WAIT
        while not beat.is_answered:
            beat.tries += 1
            before = self._bucket()
            outcome, retry_after = self._post(beat.number)
            if outcome != ConnectionRefusedError.__name__:
                beat.buckets.update(range(before, self._bucket() + 1))
            beat.is_answered = outcome == "200"
            if not beat.is_answered:
                self.refused[outcome] = self.refused.get(outcome, 0) + 1
                pause = max(wait * random.uniform(0.5, 1.0), retry_after)
                wait = min(LONGEST_WAIT, wait * 2)
                gevent.sleep(max(SHORTEST_WAIT, pause * scale))

    def _bucket(self) -> int:
        return int(self.clock.at(time.time()) // BUCKET_SECONDS)

    def _post(self, number: int) -> tuple[str, float]:
        """The status, or the error's name, and how long to wait as the hub says."""
        if self.connection is None:
            self.connection = http.client.HTTPConnection(
                "127.0.0.1", self.port, timeout=ANSWER_SECONDS
            )
        headers = {
            "Authorization": f"Bearer {self.token}", "Content-Type": "application/json"
        }  # fmt: skip
        try:
            self.connection.request("POST", "/agent/v1/heartbeat", body(number), headers)
            answer = self.connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            self.connection = None
            return type(error).__name__, 0.0
        return str(answer.status), float(answer.headers.get("Retry-After") or 0)


def body(number: int) -> str:
    """One beat. It brings one byte, so the sums in the tables count the beats."""
    devices = [
        {
            "index": index, "name": "NVIDIA GeForce RTX 4090", "vendor_id": 4318,
            "device_id": 9860, "memory_gb": 24, "usage": 97, "mem_usage": 81.5, "temp": 71,
            "power_usage": 401.5, "power_limit_w": 450,
        }
        for index in range(DEVICES)
    ]  # fmt: skip
    return json.dumps(
        {
            "sequence": number, "cpu_usage": 23.4, "memory_usage": 61.2, "disk_usage": 40.1,
            "network_rx": 1, "network_tx": 1, "devices": devices, "uptime_seconds": 86400.5,
        }
    )  # fmt: skip


def inventory() -> dict[str, object]:
    """What such a machine tells of itself when it joins."""
    return {
        "cpu_name": "bench", "cpu_physical_cores": 8, "cpu_logical_cores": 16,
        "cpu_frequency_mhz": 3000, "memory_bytes": 2**36, "swap_bytes": 0, "disk_bytes": 2**40,
        "os_name": "Linux", "os_version": "1", "agent_version": "bench", "engines": ["vllm"],
        "devices": [
            {
                "index": index, "name": "NVIDIA GeForce RTX 4090", "kind": "gpu",
                "vendor_id": 4318, "device_id": 9860, "memory_bytes": 24 * 2**30,
            }
            for index in range(DEVICES)
        ],
    }  # fmt: skip
