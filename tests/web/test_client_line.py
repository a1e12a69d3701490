"""Sending pieces past the request's greenlet: whole, in part, not at all, and to nobody."""

from __future__ import annotations

import socket
from collections.abc import Generator, Iterator

import gevent
import pytest
from flask import Flask
from gevent.socket import socketpair

from app.web.sse import ClientLine, client_line

LONG = b"x" * 1_000_000  # more than any socket buffer here takes at once


def chunk(frame: bytes) -> bytes:
    return b"%X\r\n%b\r\n" % (len(frame), frame)


class Door:
    """An answer that is being written to a caller, as gunicorn would."""

    def __init__(self) -> None:
        self.near, self.far = socketpair()
        self.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.line = ClientLine(self.near)
        self.next_frames: list[bytes] = [b"first"]
        self.answer = self.line.carry(self._frames())

    def _frames(self) -> Generator[bytes, None, None]:
        while self.next_frames:
            yield self.next_frames.pop(0)

    def write_next(self) -> bytes | None:
        """What gunicorn does with one frame; gives it, None at the end."""
        frame = next(self.answer, None)
        if frame is not None:
            self.near.sendall(chunk(frame))
        return frame

    def open(self) -> None:
        """Write the first frame and come back for more, which never comes."""
        self.next_frames = [b"first", b"second"]
        self.write_next()
        self.write_next()

    def read(self, size: int) -> bytes:
        found = b""
        with gevent.Timeout(10):
            while len(found) < size:
                found += self.far.recv(size - len(found))
        return found


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()
    yield door
    door.near.close()
    door.far.close()


def test_nothing_is_sent_before_the_header_is_out(door: Door) -> None:
    assert not door.line.send(b"too early")
    assert door.write_next() == b"first"
    assert not door.line.send(b"still too early")  # gunicorn has not come back yet


def test_once_it_is_open_frames_go_out_as_chunks(door: Door) -> None:
    door.open()
    assert door.line.send(b"data: piece\n\n")
    expected = chunk(b"first") + chunk(b"second") + chunk(b"data: piece\n\n")
    assert door.read(len(expected)) == expected


def test_what_a_full_socket_takes_in_part_is_finished_by_the_answer(door: Door) -> None:
    door.open()
    assert not door.line.send(LONG)
    assert not door.line.send(b"not while that one hangs half out")
    door.next_frames = [LONG, b"after"]
    expected = chunk(b"first") + chunk(b"second") + chunk(LONG) + chunk(b"after")
    reader = gevent.spawn(door.read, len(expected))
    assert door.write_next() == b"after"  # the long one is completed, not yielded again
    assert reader.get(timeout=60) == expected


def test_a_half_sent_chunk_is_completed_even_when_no_frame_follows(door: Door) -> None:
    door.open()
    assert not door.line.send(LONG)
    expected = chunk(b"first") + chunk(b"second") + chunk(LONG)
    reader = gevent.spawn(door.read, len(expected))
    assert door.write_next() is None
    assert reader.get(timeout=60) == expected


def test_a_full_socket_leaves_the_frame_to_the_answer(door: Door) -> None:
    door.open()
    door.near._sock.setblocking(False)
    for _ in range(100_000):
        try:
            door.near._sock.send(b"y" * 1000)
        except BlockingIOError:
            break
    assert not door.line.send(b"later")
    assert door.line._rest == b""


def test_a_caller_that_left_is_not_written_to(door: Door) -> None:
    door.open()
    door.far.close()
    sent = [door.line.send(b"hello?") for _ in range(3)]
    assert not sent[-1]


def test_an_answer_that_is_over_takes_nothing_more(door: Door) -> None:
    door.open()
    assert door.write_next() is None
    assert not door.line.send(b"afterwards")


def test_an_answer_that_is_closed_takes_nothing_more(door: Door) -> None:
    door.open()
    door.answer.close()
    assert not door.line.send(b"afterwards")


@pytest.mark.parametrize(
    ("protocol", "method", "has_line"),
    [
        ("HTTP/1.1", "POST", True),
        ("HTTP/1.0", "POST", False),
        ("HTTP/2", "POST", False),
        ("HTTP/1.1", "HEAD", False),
    ],
)
def test_only_a_chunked_answer_has_a_line(
    door: Door, protocol: str, method: str, has_line: bool
) -> None:
    environ = {"gunicorn.socket": door.near, "SERVER_PROTOCOL": protocol}
    with Flask("x").test_request_context(method=method, environ_overrides=environ):
        assert (client_line() is not None) == has_line


def test_other_servers_and_tls_have_no_line() -> None:
    near, far = socket.socketpair()
    with near, far:
        for environ in ({}, {"gunicorn.socket": near}):
            overrides = {"SERVER_PROTOCOL": "HTTP/1.1", **environ}
            with Flask("x").test_request_context(environ_overrides=overrides):
                assert client_line() is None
