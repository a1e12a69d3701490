"""An agent may send anything: it harms its own answers, and nobody else's."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from websocket import ABNF

from app.core.engines.http import HttpFailure, Response
from tests.fixtures.hub import RunningHub
from tests.fixtures.waiting import eventually
from tests.relay.conftest import RawAgent, RelayedNode, add_node

pytestmark = pytest.mark.slow  # on one database: none has a part in what is relayed

REQUEST, REQUEST_BODY, RESPONSE, RESPONSE_BODY, RESPONSE_END = 1, 2, 3, 4, 5
CANCEL, WINDOW, ERROR, PING, PONG = 6, 7, 8, 9, 10
HEAD = {"status": 200, "headers": {"Content-Type": "text/plain"}}
WINDOW_BYTES = 256 * 1024


@pytest.fixture
def ask(node: RelayedNode) -> Iterator[Any]:
    """A worker's request in a thread; the future is its response."""
    with ThreadPoolExecutor(8) as pool:

        def start(**options: Any) -> Future[Response]:
            return pool.submit(lambda: node.ask(**options))

        yield start


@pytest.fixture
def neighbour(relay_hub: RunningHub) -> Iterator[tuple[RelayedNode, RawAgent]]:
    """Another node of the same web process, which goes on as if nothing were."""
    node = add_node(relay_hub)
    agent = RawAgent(node)
    node.wait_attached()
    yield node, agent
    agent.close()
    node.client.close()


def answer_one(node: RelayedNode, agent: RawAgent) -> bytes:
    """One whole request through an agent that behaves."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lambda: node.ask().read(10_000))
        stream, _ = agent.receive(REQUEST)
        agent.send(RESPONSE, stream, HEAD)
        agent.send(RESPONSE_BODY, stream, b"fine")
        agent.send(RESPONSE_END, stream)
        return answer.result(timeout=60)


@pytest.fixture(autouse=True)
def _neighbour_is_unharmed(neighbour: tuple[RelayedNode, RawAgent]) -> Iterator[None]:
    node, agent = neighbour
    assert answer_one(node, agent) == b"fine"
    yield
    assert answer_one(node, agent) == b"fine"


def test_a_request_names_method_path_model_and_the_engine_s_headers_alone(
    node: RelayedNode, raw_agent: RawAgent, ask: Any
) -> None:
    asked = ask(path="/v1/x?y=1", body=b"abc", headers=(("X-Kept", "1"), ("Cookie", "c=1")))

    stream, payload = raw_agent.receive(REQUEST)

    assert json.loads(payload) == {
        "method": "POST", "path": "/v1/x?y=1", "headers": {"x-kept": "1"},
        "model_name": node.model,
    }  # fmt: skip
    assert raw_agent.receive(REQUEST_BODY) == (stream, b"abc")
    assert raw_agent.receive(REQUEST_BODY) == (stream, b"")
    raw_agent.send(RESPONSE, stream, HEAD)
    raw_agent.send(RESPONSE_END, stream)
    assert asked.result(timeout=60).read(10) == b""


@pytest.mark.parametrize(
    "head",
    [
        b"no json",
        b"[" * 100_000,
        b"[1]",
        {"status": "200"},
        {"status": True},
        {"status": 101},
        {"status": 99999},
        {"status": 200, "headers": [["a", "b"]]},
        {"status": 200, "headers": {f"x-{n}": "y" for n in range(5000)}},
        {"status": 200, "headers": {"x": "y" * 500_000}},
    ],
    ids=lambda head: str(head)[:40],
)
def test_a_head_that_is_none_is_a_502(raw_agent: RawAgent, ask: Any, head: Any) -> None:
    asked = ask()
    stream, _ = raw_agent.receive(REQUEST)

    raw_agent.send(RESPONSE, stream, head)

    assert raw_agent.receive(CANCEL) == (stream, b"")
    answer = asked.result(timeout=60)
    assert answer.status == 502
    assert json.loads(answer.read(10_000))["error"]["type"] == "engine_broke"


def test_headers_that_would_end_the_head_or_frame_the_body_are_left_out(
    raw_agent: RawAgent, ask: Any
) -> None:
    asked = ask()
    stream, _ = raw_agent.receive(REQUEST)
    bad = {
        "X-A": "1\r\nX-Evil: 1", "X-B\r\nX-Evil": "1", "X-C": 7, "X D": "1", "X-E": "\u4e2d",
        "Content-Length": "3", "Transfer-Encoding": "identity", "Connection": "upgrade",
        "Set-Cookie": "a=b", "X-Good": "1",
    }  # fmt: skip

    raw_agent.send(RESPONSE, stream, {"status": 200, "headers": bad})
    raw_agent.send(RESPONSE_BODY, stream, b"whole")
    raw_agent.send(RESPONSE_END, stream)

    answer = asked.result(timeout=60)
    assert answer.read(100) == b"whole"
    assert answer.headers["x-good"] == "1"
    assert "x-evil" not in answer.headers


@pytest.mark.parametrize(
    "frames",
    [
        [(RESPONSE_BODY, b"no head")],
        [(RESPONSE_END, b"")],
        [(RESPONSE, HEAD), (RESPONSE, HEAD)],
        [(RESPONSE, HEAD), *[(RESPONSE_BODY, b"x" * 60_000)] * 400],
        [(RESPONSE, {"status": 204}), (RESPONSE_BODY, b"x")],
    ],
    ids=["body first", "end first", "two heads", "far more than the window", "body of a 204"],
)
def test_frames_out_of_order_end_that_answer(
    node: RelayedNode, raw_agent: RawAgent, frames: list[tuple[int, Any]]
) -> None:
    sock = node.socket()  # a worker that does not read, so that nothing is passed on
    head = "".join(f"{name}: {value}\r\n" for name, value in node.headers)
    sock.sendall(f"GET /v1/models HTTP/1.1\r\n{head}\r\n".encode())
    stream, _ = raw_agent.receive(REQUEST)

    for kind, payload in frames:
        raw_agent.send(kind, stream, payload)

    assert raw_agent.receive(CANCEL) == (stream, b"")
    sock.close()
    assert answer_one(node, raw_agent) == b"fine"


def test_empty_pieces_do_not_end_the_body(raw_agent: RawAgent, ask: Any) -> None:
    asked = ask()
    stream, _ = raw_agent.receive(REQUEST)

    raw_agent.send(RESPONSE, stream, HEAD)
    for piece in (b"", b"a", b"", b"b"):
        raw_agent.send(RESPONSE_BODY, stream, piece)
    raw_agent.send(RESPONSE_END, stream)

    assert asked.result(timeout=60).read(100) == b"ab"


def test_frames_of_streams_that_nobody_opened_are_nothing(
    node: RelayedNode, raw_agent: RawAgent
) -> None:
    for kind in (RESPONSE, RESPONSE_BODY, RESPONSE_END, CANCEL, WINDOW, ERROR, REQUEST):
        raw_agent.send(kind, 4_000_000_000, HEAD)

    assert answer_one(node, raw_agent) == b"fine"


def test_an_agent_without_an_answer_is_given_up_by_the_worker(
    raw_agent: RawAgent, node: RelayedNode
) -> None:
    sock = node.socket()
    head = "".join(f"{name}: {value}\r\n" for name, value in node.headers)
    sock.sendall(f"GET /v1/models HTTP/1.1\r\n{head}\r\n".encode())
    stream, _ = raw_agent.receive(REQUEST)

    sock.close()

    assert raw_agent.receive(CANCEL) == (stream, b"")
    raw_agent.send(RESPONSE, stream, HEAD)  # too late, and harmless
    assert answer_one(node, raw_agent) == b"fine"


@pytest.mark.parametrize("payload", [b"no json", b"[1]", {}, {"reason": 7}])
def test_an_error_that_cannot_be_read_is_an_error(
    raw_agent: RawAgent, ask: Any, payload: Any
) -> None:
    asked = ask()
    stream, _ = raw_agent.receive(REQUEST)

    raw_agent.send(ERROR, stream, payload)

    answer = asked.result(timeout=60)
    assert answer.status == 502
    assert b"engine_broke" in answer.read(1000)


@pytest.mark.parametrize(
    ("reason", "status"),
    [("engine_unreachable", 502), ("engine_overloaded", 503), ("engine_timeout", 504)],
)
def test_an_agent_s_reason_becomes_a_status(
    raw_agent: RawAgent, ask: Any, reason: str, status: int
) -> None:
    asked = ask()
    stream, _ = raw_agent.receive(REQUEST)

    raw_agent.send(ERROR, stream, {"reason": reason, "message": "no"})

    answer = asked.result(timeout=60)
    assert answer.status == status
    assert json.loads(answer.read(1000))["error"]["type"] == reason


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"", 1002),
        (b"\x01\x00", 1002),
        (b"\x00\x00\x00\x00\x01", 1002),
        (b"\xff\x00\x00\x00\x01", 1002),
    ],
    ids=["empty", "short", "type 0", "type 255"],
)
def test_what_is_no_frame_ends_the_connection(
    node: RelayedNode, raw_agent: RawAgent, message: bytes, code: int
) -> None:
    raw_agent.send_raw(message)

    assert raw_agent.wait_closed() == code
    node.wait_detached()


def test_a_huge_frame_ends_the_connection(node: RelayedNode, raw_agent: RawAgent) -> None:
    raw_agent.send_raw(b"\x04\x00\x00\x00\x01" + b"x" * 1_500_000)

    # The close frame itself may be lost: the hub leaves without reading the rest.
    assert raw_agent.wait_closed() in {1009, None}
    node.wait_detached()


def test_text_is_refused(node: RelayedNode, raw_agent: RawAgent) -> None:
    raw_agent.socket.send("hello")

    assert raw_agent.wait_closed() == 1003


def test_bytes_that_are_no_websocket_end_the_connection(
    node: RelayedNode, raw_agent: RawAgent
) -> None:
    raw_agent.socket.sock.sendall(b"\x82\x05hello")  # not masked

    assert raw_agent.wait_closed() == 1002


def test_a_message_in_parts_is_one_message(raw_agent: RawAgent, ask: Any) -> None:
    asked = ask()
    stream, _ = raw_agent.receive(REQUEST)
    raw_agent.send(RESPONSE, stream, HEAD)
    whole = b"\x04" + stream.to_bytes(4, "big") + b"parts"
    zero_mask = b"\0\0\0\0"
    parts = (whole[:3], whole[3:7], whole[7:])

    for first, part in zip((0x02, 0x00, 0x80), parts, strict=True):
        raw_agent.socket.sock.sendall(bytes((first, 0x80 | len(part))) + zero_mask + part)
    raw_agent.send(RESPONSE_END, stream)

    assert asked.result(timeout=60).read(100) == b"parts"


def test_an_endless_message_in_parts_is_too_big(node: RelayedNode, raw_agent: RawAgent) -> None:
    part = b"\xff" + (60_000).to_bytes(8, "big") + b"\0\0\0\0" + b"x" * 60_000
    sock = raw_agent.socket.sock
    sock.sendall(b"\x02" + part)
    for _ in range(17):
        sock.sendall(b"\x00" + part)

    assert raw_agent.wait_closed() in {1009, None}
    node.wait_detached()


def test_pings_are_answered_and_who_never_reads_is_cut_off(
    node: RelayedNode, raw_agent: RawAgent
) -> None:
    raw_agent.send(PING, 3, b"123")
    assert raw_agent.receive(PONG) == (3, b"123")

    ping = struct.pack("!BI", PING, 0) + b"x" * 120
    frames = ABNF.create_frame(ping, ABNF.OPCODE_BINARY).format() * 1000

    def flood() -> bool:
        try:
            raw_agent.socket.sock.sendall(frames)
        except OSError:
            return True
        return False

    eventually(flood, timeout=60, what="the connection's end")


def test_two_requests_at_once_on_one_connection_are_refused(
    node: RelayedNode, raw_agent: RawAgent
) -> None:
    sock = node.socket()
    head = "".join(f"{name}: {value}\r\n" for name, value in node.headers)
    sock.sendall(f"GET /v1/models HTTP/1.1\r\n{head}\r\n".encode() * 2)
    stream, _ = raw_agent.receive(REQUEST)

    assert raw_agent.receive(CANCEL) == (stream, b"")
    sock.close()


def test_a_failure_of_the_worker_is_no_bug(node: RelayedNode, raw_agent: RawAgent) -> None:
    with pytest.raises(HttpFailure):
        node.ask(address="unix:/nowhere/relay.sock")
