"""Text that the listener delivers itself, while its reader waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from app.core.stream import END, REASONING, TEXT, Event, StreamHub, Subscription
from tests.stream.conftest import END_VALUE, wait_until


class Reading:
    """A reader that waits in another thread, with a place to deliver text to."""

    def __init__(self, hub: StreamHub) -> None:
        self.reader: Subscription = hub.subscribe("r", replay=False)
        self.taken: list[str] = []
        self.takes = True
        self._pool = ThreadPoolExecutor(1)

    def take(self, text: str) -> bool:
        if self.takes:
            self.taken.append(text)
        return self.takes

    def wait(self, timeout: float = 20.0) -> Future[Event | None]:
        """Begin to wait; what comes is in the future."""
        found = self._pool.submit(self.reader.get, timeout, self.take)
        wait_until(lambda: self.reader._take_text is not None)
        return found

    def offer(self, number: int, kind: str, value: Any) -> None:
        self.reader.offer(number, number, kind, value)

    def close(self) -> None:
        self.reader.close()
        self._pool.shutdown()


@pytest.fixture
def reading(make_hub: Any, redis_url: str) -> Iterator[Reading]:
    reading = Reading(make_hub(redis_url))
    yield reading
    reading.close()


def test_text_that_is_next_is_delivered_without_the_reader(reading: Reading) -> None:
    found = reading.wait()
    reading.offer(1, TEXT, "a")
    reading.offer(2, TEXT, "b")
    assert reading.taken == ["a", "b"]
    assert reading.reader.last_seen == 2
    assert not found.done()
    reading.offer(3, END, END_VALUE)
    assert found.result(10) == Event(3, 3, END, END_VALUE)


def test_other_kinds_go_to_the_reader_and_so_does_what_follows(reading: Reading) -> None:
    found = reading.wait()
    reading.offer(1, REASONING, "hm")
    reading.offer(2, TEXT, "a")
    assert found.result(10) == Event(1, 1, REASONING, "hm")
    assert reading.reader.get(10, reading.take) == Event(2, 2, TEXT, "a")
    assert reading.taken == []


def test_what_is_refused_comes_to_the_reader_in_order(reading: Reading) -> None:
    found = reading.wait()
    reading.offer(1, TEXT, "a")
    reading.takes = False
    reading.offer(2, TEXT, "b")
    reading.takes = True
    reading.offer(3, TEXT, "c")  # the reader has "b" to deal with first
    assert found.result(10) == Event(2, 2, TEXT, "b")
    assert reading.reader.get(10) == Event(3, 3, TEXT, "c")
    assert reading.taken == ["a"]


def test_a_repeated_piece_is_delivered_once(reading: Reading) -> None:
    found = reading.wait()
    reading.offer(1, TEXT, "a")
    reading.offer(1, TEXT, "a")
    reading.offer(2, END, END_VALUE)
    assert found.result(10) == Event(2, 2, END, END_VALUE)
    assert reading.taken == ["a"]


def test_a_gap_is_read_from_the_stream(reading: Reading, redis_client: Any) -> None:
    redis_client.xadd("weft:run:r", {"f": 1, "k": TEXT, "v": "a"}, id="0-1")
    redis_client.xadd("weft:run:r", {"f": 2, "k": TEXT, "v": "b"}, id="0-2")
    found = reading.wait()
    reading.offer(2, TEXT, "b")
    assert found.result(10) == Event(1, 1, TEXT, "a")
    assert reading.reader.get(10, reading.take) == Event(2, 2, TEXT, "b")
    assert reading.taken == []


def test_nothing_is_delivered_to_a_reader_that_does_not_wait(reading: Reading) -> None:
    assert reading.wait(0.01).result(10) is None
    reading.offer(1, TEXT, "a")
    assert reading.taken == []
    assert reading.reader.get(10) == Event(1, 1, TEXT, "a")


def test_delivered_text_counts_as_heard(reading: Reading) -> None:
    before = reading.reader.heard_at
    found = reading.wait()
    wait_until(lambda: time.monotonic() > before)
    reading.offer(1, TEXT, "a")
    assert reading.reader.heard_at > before
    reading.reader.close()
    assert found.result(10) is None
