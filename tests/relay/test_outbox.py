"""Sending without waiting, on a real pair of sockets."""

from __future__ import annotations

import gevent
from gevent import socket

from app.web.relay.outbox import Outbox

BIG = b"x" * 4_000_000


def test_what_the_socket_does_not_take_is_sent_in_order_when_it_does() -> None:
    ours, theirs = socket.socketpair()
    emptied: list[bool] = []
    outbox = Outbox(ours, on_empty=lambda: emptied.append(True))

    outbox.put(BIG)
    outbox.put(b"end")
    assert outbox.waiting_bytes > 0

    got = bytearray()
    while not got.endswith(b"end"):
        got += theirs.recv(65536)
    assert bytes(got) == BIG + b"end"
    with gevent.Timeout(10):
        assert outbox.wait_for_room(0)
    assert emptied == [True]
    ours.close()
    theirs.close()


def test_a_side_that_takes_nothing_is_known_by_its_time() -> None:
    ours, theirs = socket.socketpair()
    outbox = Outbox(ours)
    assert outbox.stalled_seconds(1e12) == 0.0

    outbox.put(BIG)
    gevent.sleep(0)

    assert outbox.stalled_seconds(1e12) > 1e11
    outbox.shut()
    gevent.sleep(0)
    assert outbox.waiting_bytes == 0
    ours.close()
    theirs.close()


def test_whoever_waits_for_room_is_woken_when_the_other_side_goes() -> None:
    ours, theirs = socket.socketpair()
    broken: list[bool] = []
    outbox = Outbox(ours, on_broken=lambda: broken.append(True))
    outbox.put(BIG)
    waiting = gevent.spawn(outbox.wait_for_room, 0)
    gevent.sleep(0)

    theirs.close()

    with gevent.Timeout(10):
        assert waiting.get() is False
    assert broken == [True]
    outbox.put(b"nothing happens")
    ours.close()
