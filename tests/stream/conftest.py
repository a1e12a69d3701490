"""Writers and hubs on a real Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.core.stream import Event, StreamHub, StreamWriter, Subscription

END_VALUE = {"state": "succeeded", "finish_reason": "stop"}


def wait_until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Wait for a condition; fail when it does not come true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("waited in vain")


def read_to_end(reader: Subscription, seconds: float = 60.0) -> list[Event]:
    """All events up to the end; fail when it does not come."""
    events: list[Event] = []
    deadline = time.monotonic() + seconds
    while not reader.is_over:
        event = reader.get(timeout=max(0.01, deadline - time.monotonic()))
        if event is None:
            pytest.fail(f"no end after {len(events)} events: {events[-3:]}")
        events.append(event)
    return events


def text_of(events: list[Event]) -> str:
    return "".join(event.value for event in events if event.kind == "text")


def assert_no_holes(events: list[Event], after: int = 0) -> None:
    """Every number once, in order."""
    for event in events:
        assert event.first == after + 1
        after = event.last


@pytest.fixture
def make_hub() -> Iterator[Callable[..., StreamHub]]:
    """Make started hubs that are closed after the test."""
    made: list[StreamHub] = []

    def make(url: str, **arguments: Any) -> StreamHub:
        hub = StreamHub(url, **arguments)
        made.append(hub)
        hub.start()
        assert hub.wait_ready(60)
        return hub

    yield make
    for hub in made:
        hub.close()


@pytest.fixture
def make_writer() -> Iterator[Callable[..., StreamWriter]]:
    """Make writers that are closed after the test."""
    made: list[StreamWriter] = []

    def make(url: str, **arguments: Any) -> StreamWriter:
        writer = StreamWriter(url, **arguments)
        made.append(writer)
        return writer

    yield make
    for writer in made:
        writer.close(timeout=0.5)


@pytest.fixture
def hub(redis_url: str, make_hub: Callable[..., StreamHub]) -> StreamHub:
    return make_hub(redis_url)


@pytest.fixture
def writer(redis_url: str, make_writer: Callable[..., StreamWriter]) -> StreamWriter:
    return make_writer(redis_url)
