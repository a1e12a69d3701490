"""One epoll for many engine sockets: what comes, what ends, and what never comes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from time import monotonic

import gevent
import pytest
from gevent.socket import socketpair

from app.core.engines import pump
from app.core.engines.pump import Watched

SIZE = 1024


class Line:
    """A socket that is watched, and its other end."""

    def __init__(self) -> None:
        self.near, self.far = socketpair()
        watched = pump.watch(self.near)
        assert watched is not None
        self.watched: Watched = watched

    def receive(self, seconds: float = 60.0) -> bytes:
        return self.watched.receive(SIZE, monotonic() + seconds)

    def close(self) -> None:
        self.watched.close()
        self.near.close()
        self.far.close()


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.close()


def waiting(line: Line, seconds: float = 60.0) -> gevent.Greenlet:
    """A greenlet that waits for what comes next, and has begun to."""
    reader = gevent.spawn(line.receive, seconds)
    while line.watched.waiter is None:
        gevent.sleep(0)
    return reader


def test_what_is_there_already_is_read_at_once(line: Line) -> None:
    line.far.sendall(b"early")
    assert line.receive() == b"early"


def test_what_comes_later_wakes_the_reader(line: Line) -> None:
    reader = waiting(line)
    line.far.sendall(b"late")
    assert reader.get(timeout=60) == b"late"


def test_pieces_come_one_by_one_and_in_order(line: Line) -> None:
    for number in range(50):
        reader = waiting(line)
        line.far.sendall(b"%d" % number)
        assert reader.get(timeout=60) == b"%d" % number


def test_what_came_while_nobody_waited_is_not_forgotten(line: Line) -> None:
    reader = waiting(line)
    line.far.sendall(b"first")
    assert reader.get(timeout=60) == b"first"
    line.far.sendall(b"second")
    gevent.sleep(0.01)  # the edge passes with nobody there
    assert line.receive() == b"second"


def test_more_than_one_read_takes_comes_whole(line: Line) -> None:
    reader = waiting(line)
    line.far.sendall(b"x" * (3 * SIZE + 7))
    found = reader.get(timeout=60)
    while len(found) < 3 * SIZE + 7:
        found += line.receive()
    assert found == b"x" * (3 * SIZE + 7)


def test_exactly_as_much_as_is_asked_for_does_not_hide_what_follows(line: Line) -> None:
    line.far.sendall(b"x" * SIZE)
    assert line.receive() == b"x" * SIZE
    reader = waiting(line)
    line.far.sendall(b"y")
    assert reader.get(timeout=60) == b"y"


def test_the_end_is_an_empty_read(line: Line) -> None:
    reader = waiting(line)
    line.far.close()
    assert reader.get(timeout=60) == b""
    assert line.receive() == b""


def test_the_end_behind_the_last_bytes_is_seen_too(line: Line) -> None:
    reader = waiting(line)
    line.far.sendall(b"last")
    line.far.close()
    assert reader.get(timeout=60) == b"last"
    assert line.receive() == b""


def test_silence_ends_at_the_deadline(line: Line) -> None:
    with pytest.raises(TimeoutError):
        line.receive(0.02)
    with pytest.raises(TimeoutError):
        line.receive(0.02)  # and the next wait has a deadline of its own


def test_each_reader_has_its_own_deadline(line: Line) -> None:
    other = Line()
    try:
        patient, hasty = waiting(line, 10.0), waiting(other, 0.02)
        hasty.join(timeout=60)
        assert isinstance(hasty.exception, TimeoutError)
        assert not patient.dead
        line.far.sendall(b"in time")
        assert patient.get(timeout=60) == b"in time"
    finally:
        other.close()


def test_nothing_is_read_after_the_deadline(line: Line) -> None:
    line.far.sendall(b"too late")
    with pytest.raises(TimeoutError):
        line.receive(-1.0)


def test_a_reader_can_be_killed_and_the_next_one_gets_all(line: Line) -> None:
    reader = waiting(line)
    reader.kill()
    assert line.watched.waiter is None
    line.far.sendall(b"for the next")
    assert line.receive() == b"for the next"


def test_closing_ends_the_wait(line: Line) -> None:
    reader = waiting(line)
    line.watched.close()
    line.near.close()
    reader.join(timeout=60)
    assert isinstance(reader.exception, OSError)


def test_closing_twice_is_harmless_and_the_number_may_come_again(line: Line) -> None:
    number = line.near.fileno()
    line.watched.close()
    line.near.close()
    fresh = Line()
    try:
        assert fresh.near.fileno() == number
        line.watched.close()
        reader = waiting(fresh)
        fresh.far.sendall(b"mine")
        assert reader.get(timeout=60) == b"mine"
    finally:
        fresh.close()


def test_many_sockets_at_once() -> None:
    lines = [Line() for _ in range(300)]
    try:
        readers = [waiting(one) for one in lines]
        for number, one in enumerate(lines):
            one.far.sendall(b"%d" % number)
        gevent.joinall(readers, timeout=60)
        assert [reader.value for reader in readers] == [b"%d" % n for n in range(300)]
    finally:
        for one in lines:
            one.close()


@pytest.fixture
def _gathering() -> Iterator[None]:
    pump.gather(0.01)
    yield
    pump.gather(0.0)


@pytest.mark.usefixtures("_gathering")
def test_a_crowd_whose_answers_flow_gets_everything_in_order() -> None:
    crowd = [Line() for _ in range(40)]
    try:
        for one in crowd:
            one.watched.set_flowing(True)
        for number in range(20):
            readers = [waiting(one) for one in crowd]
            for one in crowd:
                one.far.sendall(b"%d" % number)
            gevent.joinall(readers, timeout=60)
            assert {reader.value for reader in readers} == {b"%d" % number}
    finally:
        for one in crowd:
            one.close()


@pytest.mark.usefixtures("_gathering")
def test_pieces_that_come_between_two_looks_are_read_together() -> None:
    crowd = [Line() for _ in range(40)]
    try:
        for one in crowd:
            one.watched.set_flowing(True)
        readers = [waiting(one) for one in crowd]
        crowd[0].far.sendall(b"0")  # the first look finds a crowd: from here on it gathers
        assert readers[0].get(timeout=60) == b"0"
        crowd[1].far.sendall(b"a")
        crowd[1].far.sendall(b"b")
        assert readers[1].get(timeout=60) == b"ab"
        gevent.killall(readers)
    finally:
        for one in crowd:
            one.close()


def test_what_is_there_when_an_answer_begins_to_flow_is_not_lost(line: Line) -> None:
    for flows in (True, False, True):
        line.far.sendall(b"now")
        line.watched.has_more = False  # as if the edge had not been seen yet
        line.watched.set_flowing(flows)
        assert waiting_or_done(line) == b"now"


def waiting_or_done(line: Line) -> bytes:
    return bytes(gevent.spawn(line.receive).get(timeout=60))


@pytest.mark.usefixtures("_gathering")
def test_a_crowd_that_leaves_does_not_keep_the_last_one_waiting() -> None:
    line = Line()
    line.watched.set_flowing(True)
    crowd = [Line() for _ in range(40)]
    for one in crowd:
        one.watched.set_flowing(True)
    readers = [waiting(one) for one in crowd]
    for one in crowd:
        one.far.sendall(b"go")
    gevent.joinall(readers, timeout=60)
    for one in crowd:
        one.close()
    for number in range(10):
        reader = waiting(line)
        line.far.sendall(b"%d" % number)
        assert reader.get(timeout=60) == b"%d" % number
    line.close()


@pytest.mark.usefixtures("_gathering")
def test_a_crowd_that_falls_silent_is_heard_when_it_speaks_again() -> None:
    crowd = [Line() for _ in range(40)]
    for one in crowd:
        one.watched.set_flowing(True)
    try:
        readers = [waiting(one) for one in crowd]
        gevent.sleep(0.05)
        crowd[7].far.sendall(b"here")
        assert readers[7].get(timeout=60) == b"here"
        gevent.sleep(0.05)
        crowd[8].far.sendall(b"there")
        assert readers[8].get(timeout=60) == b"there"
        gevent.killall(readers)
    finally:
        for one in crowd:
            one.close()


def test_plain_sockets_and_other_threads_are_left_alone() -> None:
    near, far = socket.socketpair()
    with near, far:
        assert pump.watch(near) is None
    found: list[Watched | None] = []

    def elsewhere() -> None:
        one, other = socketpair()
        found.append(pump.watch(one))
        one.close()
        other.close()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(60)
    assert found == [None]
