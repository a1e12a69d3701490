"""The relay end to end: a worker's request, the hub, an agent's connection, an engine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from app.core.engines.http import ConnectionLost
from tests.fakes.http_server import Exchange, FakeServer
from tests.fixtures.waiting import eventually
from tests.relay.conftest import Connect, RelayedNode

BIG = 3_000_000
MANY = 200


@dataclass
class Engine:
    """An engine that answers as the path says."""

    gate: threading.Event = field(default_factory=threading.Event)
    sent: int = 0
    waiting: int = 0

    def handle(self, exchange: Exchange) -> None:
        path = exchange.request.path
        if path == "/v1/slow":
            exchange.start_stream()
            exchange.chunk(b"first\n")
            exchange.hang()
        elif path == "/v1/gated":
            exchange.start_stream()
            exchange.chunk(b"first\n")
            self.waiting += 1
            self.gate.wait(30)
            exchange.chunk(b"second\n")
            exchange.end_stream()
        elif path == "/v1/endless":
            exchange.start_stream()
            while True:
                exchange.chunk(b"x" * 10_000)
                self.sent += 10_000
        elif path == "/v1/cut":
            exchange.start_stream()
            exchange.chunk(b"first\n")
            exchange.cut()
        elif path == "/v1/big":
            exchange.respond(200, b"x" * BIG)
        else:
            exchange.respond_json(200, {"got": len(exchange.request.body)})


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def server(engine: Engine) -> Iterator[FakeServer]:
    with FakeServer(engine.handle) as server:
        yield server
        engine.gate.set()


def test_a_request_reaches_the_engine_without_the_hub_s_own_headers(
    node: RelayedNode, server: FakeServer, connect: Connect
) -> None:
    connect(node, server.url, api_key="engine-key")

    answer = node.ask(
        body=b'{"a":1}',
        headers=(("Content-Type", "application/json"), ("Authorization", "Bearer hub-secret")),
    )

    assert answer.status == 200
    assert json.loads(answer.read(10_000)) == {"got": 7}
    (request,) = server.requests
    assert request.headers["authorization"] == "Bearer engine-key"
    assert request.headers["content-type"] == "application/json"
    assert [name for name in request.headers if name.startswith("x-weft")] == []


def test_pieces_arrive_as_the_engine_sends_them(
    node: RelayedNode, server: FakeServer, engine: Engine, connect: Connect
) -> None:
    connect(node, server.url)

    lines = node.ask("/v1/gated").lines()

    assert next(lines) == b"first"
    assert not engine.gate.is_set()
    engine.gate.set()
    assert list(lines) == [b"second"]


def test_a_connection_of_the_worker_serves_many_requests(
    node: RelayedNode, server: FakeServer, connect: Connect
) -> None:
    connect(node, server.url)
    sock = node.socket()
    head = "".join(f"{name}: {value}\r\n" for name, value in node.headers)

    for size in (0, 5, 200_000):
        body = b"y" * size
        sock.sendall(
            f"POST /v1/x HTTP/1.1\r\nHost: e\r\n{head}Content-Length: {size}\r\n\r\n".encode()
            + body
        )
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            piece = sock.recv(65536)
            assert piece
            data += piece
        assert b'{"got":%d}' % size in data
    sock.close()


def test_a_body_longer_than_any_window_arrives_whole(
    node: RelayedNode, server: FakeServer, connect: Connect
) -> None:
    connect(node, server.url)

    assert node.ask("/v1/big").read(2 * BIG) == b"x" * BIG


def test_a_worker_that_leaves_frees_the_engine(
    node: RelayedNode, server: FakeServer, connect: Connect
) -> None:
    connect(node, server.url)
    answer = node.ask("/v1/slow")
    assert next(answer.lines()) == b"first"

    answer.close()

    eventually(lambda: server.counts.cancelled == 1)


def test_an_engine_that_breaks_off_is_no_whole_answer(
    node: RelayedNode, server: FakeServer, connect: Connect
) -> None:
    connect(node, server.url)
    lines = node.ask("/v1/cut").lines()

    assert next(lines) == b"first"
    with pytest.raises(ConnectionLost):
        next(lines)


def test_a_reader_that_stops_reading_stops_the_engine_and_nobody_else(
    node: RelayedNode, server: FakeServer, engine: Engine, connect: Connect
) -> None:
    connect(node, server.url)
    slow = node.ask("/v1/endless")

    def has_stopped() -> bool:
        before = engine.sent
        with ThreadPoolExecutor(1) as other:  # meanwhile, another request is answered
            other.submit(lambda: node.ask().read(10_000)).result(timeout=60)
        return engine.sent == before > 0

    eventually(has_stopped)
    # Window, and what the kernel and both programs hold between engine and reader.
    assert engine.sent < 20_000_000
    slow.close()
    eventually(lambda: server.counts.cancelled == 1)


def test_200_at_once_share_one_connection(
    node: RelayedNode, server: FakeServer, engine: Engine, connect: Connect
) -> None:
    connect(node, server.url)

    with ThreadPoolExecutor(MANY) as pool:
        answers = [
            pool.submit(lambda: list(node.ask("/v1/gated").lines())) for _ in range(MANY)
        ]
        eventually(lambda: engine.waiting == MANY, timeout=60)
        engine.gate.set()
        lines = [answer.result(timeout=60) for answer in answers]

    assert lines == [[b"first", b"second"]] * MANY


def test_an_engine_that_is_gone_is_a_502_that_says_so(
    node: RelayedNode, server: FakeServer, connect: Connect
) -> None:
    connect(node, server.url)
    server.stop()

    answer = node.ask()

    assert answer.status == 502
    assert json.loads(answer.read(10_000))["error"]["type"] == "engine_unreachable"


def test_a_node_that_is_not_connected_is_a_502(
    node: RelayedNode, server: FakeServer, connect: Connect
) -> None:
    client = connect(node, server.url)
    address = node.wait_attached()
    client.stop()
    node.wait_detached()

    answer = node.ask(address=address)

    assert answer.status == 502
    assert json.loads(answer.read(10_000))["error"]["type"] == "engine_unreachable"


def test_a_stranger_without_the_key_gets_nothing(
    node: RelayedNode, server: FakeServer, connect: Connect
) -> None:
    connect(node, server.url)
    sock = node.socket()

    sock.sendall(
        f"POST /v1/x HTTP/1.1\r\nX-Weft-Node: {node.client_id}\r\nX-Weft-Key: 1\r\n\r\n".encode()
    )

    assert sock.recv(65536).startswith(b"HTTP/1.1 403 ")
    assert sock.recv(65536) == b""
    assert server.requests == []
    sock.close()


def test_a_connection_lost_in_the_middle_ends_the_answer_at_once(
    node: RelayedNode, server: FakeServer, connect: Connect
) -> None:
    client = connect(node, server.url)
    lines = node.ask("/v1/slow").lines()
    assert next(lines) == b"first"

    client.stop()

    with pytest.raises(ConnectionLost):
        next(lines)
    node.wait_detached()
