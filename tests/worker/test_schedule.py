"""Periodic duties: on one worker at a time, again and again."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest
from redis import Redis

from worker import schedule
from worker.schedule import Duty, Schedule

calls: list[str] = []
gate = gevent.event.Event()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    calls.clear()
    gate.clear()
    yield
    gate.set()


def note_call() -> None:
    calls.append("called")


def fail() -> None:
    calls.append("failed")
    raise ValueError("this duty always fails")


def wait_at_gate() -> None:
    calls.append("waiting")
    gate.wait()


def duty(function: str, every_seconds: float) -> Duty:
    return Duty(function, every_seconds, f"{__name__}.{function}")


def tick_for(seconds: float, *schedules: Schedule) -> None:
    with gevent.Timeout(seconds, False):
        while True:
            for one in schedules:
                one.tick()
            gevent.sleep(0.02)


def test_workers_share_a_duty_instead_of_each_doing_it(redis_client: Redis) -> None:
    table = [duty("note_call", 3600)]
    tick_for(0.3, *[Schedule(redis_client, table) for _ in range(3)])
    assert calls == ["called"]


def test_a_duty_comes_again_when_it_is_due(redis_client: Redis) -> None:
    one = Schedule(redis_client, [duty("note_call", 0.6)])
    with gevent.Timeout(20):
        while len(calls) < 3:
            one.tick()
            gevent.sleep(0.02)


def test_a_duty_that_still_runs_is_not_started_again_anywhere(redis_client: Redis) -> None:
    table = [duty("wait_at_gate", 0.1)]
    tick_for(0.5, Schedule(redis_client, table), Schedule(redis_client, table))
    assert calls == ["waiting"]


def test_a_dead_workers_duty_is_taken_over(
    redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "LOCK_SECONDS", 0.2)
    table = [duty("wait_at_gate", 0.1)]
    Schedule(redis_client, table).tick()
    gevent.sleep(0)
    other = Schedule(redis_client, table)
    with gevent.Timeout(20):
        while len(calls) < 2:
            other.tick()
            gevent.sleep(0.02)


def test_a_failing_duty_does_not_end_the_others(redis_client: Redis) -> None:
    tick_for(0.3, Schedule(redis_client, [duty("fail", 3600), duty("note_call", 3600)]))
    assert sorted(calls) == ["called", "failed"]
