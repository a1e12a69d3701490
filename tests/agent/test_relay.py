"""The relay's agent side: frames in, requests to the engine on loopback, frames back."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent.hub import HubClient, NotEnrolled
from agent.launchers.base import EngineAddress
from agent.relay import STREAMS_AT_ONCE, RelayClient
from agent.relay_frames import INITIAL_WINDOW_BYTES
from agent.relay_stream import is_allowed
from agent.state import Identity
from tests.agent.conditions import eventually
from tests.fakes.http_server import Exchange, FakeServer
from tests.fakes.relay_hub import (
    CANCEL,
    ERROR,
    PING,
    PONG,
    RESPONSE,
    RESPONSE_BODY,
    RESPONSE_END,
    FakeRelayHub,
)

KEY = "the-engine-s-own-key"


@dataclass
class Engine:
    """An engine that answers as the path says."""

    gate: threading.Event = field(default_factory=threading.Event)

    def handle(self, exchange: Exchange) -> None:
        path = exchange.request.path
        if path.endswith("/slow"):
            exchange.start_stream()
            exchange.chunk(b"data: first\n\n")
            exchange.hang()
        elif path.endswith("/silent"):
            exchange.hang()
        elif path.endswith("/gated"):
            exchange.start_stream()
            exchange.chunk(b"data: first\n\n")
            self.gate.wait(20)
            exchange.chunk(b"data: second\n\n")
            exchange.end_stream()
        elif path.endswith("/big"):
            exchange.respond(200, b"x" * (INITIAL_WINDOW_BYTES + 100_000))
        elif path.endswith("/cut"):
            exchange.start_stream()
            exchange.chunk(b"data: first\n\n")
            exchange.cut()
        elif path.endswith("/refused"):
            exchange.respond_json(422, {"error": "no"})
        else:
            exchange.respond_json(200, {"echo": exchange.request.body.decode()})


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def server(engine: Engine) -> Iterator[FakeServer]:
    with FakeServer(engine.handle) as server:
        yield server
        engine.gate.set()


@pytest.fixture
def hub() -> Iterator[FakeRelayHub]:
    with FakeRelayHub() as hub:
        yield hub


@dataclass
class Relay:
    client: RelayClient
    fatal: list[NotEnrolled]


@pytest.fixture
def connect(hub: FakeRelayHub, server: FakeServer) -> Iterator[Callable[..., Relay]]:
    started: list[RelayClient] = []

    def start(**options: Any) -> Relay:
        fatal: list[NotEnrolled] = []
        client = RelayClient(
            HubClient(
                Identity(hub=hub.url, client_id="0" * 32, node_token="node-token"),
                enrolment_token=None,
                enrolment=dict,
                on_identity=lambda _identity: None,
            ),
            find=lambda name: EngineAddress(server.url, KEY) if name == "tiny" else None,
            on_fatal=fatal.append,
            **options,
        )
        client.start()
        started.append(client)
        return Relay(client, fatal)

    yield start
    for client in started:
        client.stop()


@pytest.fixture
def relay(connect: Callable[..., Relay], hub: FakeRelayHub) -> Relay:
    relay = connect()
    hub.wait_for_agent()
    return relay


def test_a_request_goes_to_the_engine_and_its_answer_back(
    relay: Relay, hub: FakeRelayHub, server: FakeServer
) -> None:
    stream = hub.ask(
        body=b'{"a":1}',
        headers={
            "Content-Type": "application/json",
            "Authorization": "Bearer stolen",
            "Host": "evil.example.org",
            "Cookie": "session=1",
            "Transfer-Encoding": "chunked",
        },
    )
    hub.wait_for(stream, RESPONSE_END)
    head = json.loads(hub.wait_for(stream, RESPONSE))
    assert head["status"] == 200
    assert head["headers"]["content-type"] == "application/json"
    assert json.loads(hub.body(stream)) == {"echo": '{"a":1}'}
    (request,) = server.requests
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["host"].startswith("127.0.0.1")
    assert "cookie" not in request.headers
    assert "transfer-encoding" not in request.headers
    assert hub.tokens == ["node-token"]


def test_an_engine_s_refusal_is_an_answer(relay: Relay, hub: FakeRelayHub) -> None:
    stream = hub.ask("/v1/refused")
    hub.wait_for(stream, RESPONSE_END)
    assert json.loads(hub.wait_for(stream, RESPONSE))["status"] == 422
    assert json.loads(hub.body(stream)) == {"error": "no"}


def test_pieces_come_as_the_engine_sends_them(
    relay: Relay, hub: FakeRelayHub, engine: Engine
) -> None:
    stream = hub.ask("/v1/gated")
    assert hub.wait_for(stream, RESPONSE_BODY) == b"data: first\n\n"
    assert hub.of(stream, RESPONSE_END) == []
    engine.gate.set()
    hub.wait_for(stream, RESPONSE_END)
    assert hub.body(stream) == b"data: first\n\ndata: second\n\n"


def test_the_agent_never_sends_more_than_the_window(relay: Relay, hub: FakeRelayHub) -> None:
    stream = hub.ask("/v1/big")
    hub.wait_until(
        lambda: (
            sum(len(f[2]) for f in hub.frames if f[0] == RESPONSE_BODY) == INITIAL_WINDOW_BYTES
        )
    )
    # Another stream isn't held up by the full one, and the full one sends nothing meanwhile.
    other = hub.ask()
    hub.wait_for(other, RESPONSE_END)
    assert len(hub.body(stream)) == INITIAL_WINDOW_BYTES
    hub.widen(stream, 1_000)
    hub.wait_until(
        lambda: (
            sum(len(f[2]) for f in hub.frames if f[:2] == (RESPONSE_BODY, stream))
            == INITIAL_WINDOW_BYTES + 1_000
        )
    )
    hub.widen(stream, 200_000)
    hub.wait_for(stream, RESPONSE_END)
    assert hub.body(stream) == b"x" * (INITIAL_WINDOW_BYTES + 100_000)


@pytest.mark.parametrize("path", ["/v1/slow", "/v1/silent"])
def test_cancel_closes_the_engine_s_connection(
    relay: Relay, hub: FakeRelayHub, server: FakeServer, path: str
) -> None:
    stream = hub.ask(path)
    eventually(lambda: server.requests, what="the request")
    if path == "/v1/slow":
        hub.wait_for(stream, RESPONSE_BODY)
    hub.send(CANCEL, stream, b"client_left")
    eventually(lambda: server.counts.cancelled == 1, what="the cancel at the engine")
    assert hub.of(stream, RESPONSE_END) == []
    assert hub.of(stream, ERROR) == []


def test_an_engine_that_breaks_off_is_no_whole_answer(relay: Relay, hub: FakeRelayHub) -> None:
    stream = hub.ask("/v1/cut")
    assert b"broke off" in hub.wait_for(stream, CANCEL)
    assert hub.body(stream) == b"data: first\n\n"
    assert hub.of(stream, RESPONSE_END) == []


def test_an_engine_that_is_gone_is_an_error_before_any_response(
    relay: Relay, hub: FakeRelayHub, server: FakeServer
) -> None:
    server.stop()
    error = json.loads(hub.wait_for(hub.ask(), ERROR))
    assert error["reason"] == "engine_unreachable"


def test_a_model_that_is_not_here_is_an_error(
    relay: Relay, hub: FakeRelayHub, server: FakeServer
) -> None:
    stream = hub.ask(model_name="other")
    assert json.loads(hub.wait_for(stream, ERROR))["reason"] == "engine_unreachable"
    assert server.requests == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/metrics"),
        ("POST", "/v1/../admin"),
        ("POST", "/v1/%2e%2e/admin"),
        ("POST", "/v1/%252e%252e/admin"),
        ("POST", "//other.example.org/v1/"),
        ("POST", "http://other.example.org/v1/"),
        ("POST", "/v1/chat\r\nX: 1"),
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/props"),
        ("POST", "/slots"),
        ("GET", "/generated"),
        ("DELETE", "/v1/models"),
        ("CONNECT", "/v1/models"),
    ],
)
def test_other_paths_are_not_relayed(method: str, path: str) -> None:
    assert not is_allowed(method, path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models"),
        ("POST", "/generate"),
        ("POST", "/generate_stream"),
        ("POST", "/"),
        ("POST", "/tokenize"),
        ("GET", "/health"),
        ("GET", "/info"),
        ("GET", "/props"),
        ("GET", "/slots?fail_on_no_slot=1"),
    ],
)
def test_what_engine_clients_need_is_relayed(method: str, path: str) -> None:
    assert is_allowed(method, path)


def test_a_path_that_is_not_relayed_is_403(
    relay: Relay, hub: FakeRelayHub, server: FakeServer
) -> None:
    stream = hub.ask("/metrics", method="GET")
    hub.wait_for(stream, RESPONSE_END)
    assert json.loads(hub.wait_for(stream, RESPONSE))["status"] == 403
    assert server.requests == []


def test_many_at_once_and_no_more_than_there_is_room_for(
    relay: Relay, hub: FakeRelayHub, engine: Engine
) -> None:
    streams = [hub.ask("/v1/gated") for _ in range(STREAMS_AT_ONCE)]
    for stream in streams:
        hub.wait_for(stream, RESPONSE_BODY)
    error = json.loads(hub.wait_for(hub.ask(), ERROR))
    assert error["reason"] == "engine_overloaded"
    engine.gate.set()
    for stream in streams:
        hub.wait_for(stream, RESPONSE_END)


def test_pings_are_answered_with_their_payload(relay: Relay, hub: FakeRelayHub) -> None:
    hub.send(PING, 0, b"12345")
    assert hub.wait_for(0, PONG) == b"12345"


def test_the_agent_comes_back_after_the_connection_was_cut(
    relay: Relay, hub: FakeRelayHub, server: FakeServer
) -> None:
    hub.ask("/v1/slow")
    eventually(lambda: server.requests, what="the request")
    hub.drop()
    eventually(lambda: server.counts.cancelled == 1, what="the end of the request under way")
    hub.wait_for_agent(2)
    hub.wait_for(hub.ask(), RESPONSE_END)


def test_a_silent_hub_is_left_and_found_again(
    connect: Callable[..., Relay], hub: FakeRelayHub
) -> None:
    hub.answers_pings = False
    connect(ping_seconds=0.05, silence_seconds=0.3)
    hub.wait_for_agent(2)
    assert hub.of(0, PING)


def test_a_removed_node_stops_asking(connect: Callable[..., Relay], hub: FakeRelayHub) -> None:
    hub.refuse_with = [401]
    relay = connect()
    eventually(lambda: relay.fatal, what="the end")
    assert "--token" in str(relay.fatal[0])


def test_a_hub_that_is_starting_is_tried_again(
    connect: Callable[..., Relay], hub: FakeRelayHub
) -> None:
    hub.refuse_with = [502]
    connect()
    hub.wait_for_agent()
