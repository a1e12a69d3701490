"""A real hub, agents' relays against it, and workers' requests through it."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa
import websocket

from agent.hub import HubClient, NotEnrolled
from agent.launchers.base import EngineAddress
from agent.relay import RelayClient
from agent.state import Identity
from app.core.clock import utc_now
from app.core.engines.http import HttpClient, Request, Response
from app.core.ids import hash_secret, new_secret
from app.core.models import Node
from app.core.services.relay import relay_key
from app.core.urls import parse_url
from tests.fixtures.hub import SECRET_KEY, MakeHub, RunningHub
from tests.fixtures.waiting import eventually


@dataclass
class RelayedNode:
    """A node of the hub's that is reached by the relay alone."""

    hub: RunningHub
    node_id: int
    client_id: str
    token: str
    model: str
    client: HttpClient = field(default_factory=lambda: HttpClient(_no_connection))

    @property
    def address(self) -> str | None:
        """Where the hub says that it is held."""
        with self.hub.sessions() as session:
            return session.scalar(sa.select(Node.relay).where(Node.id == self.node_id))

    def wait_attached(self, *, not_at: str | None = None, timeout: float = 60.0) -> str:
        """Wait until some web process holds it; the process's address."""
        found = eventually(
            lambda: self.address if self.address != not_at else None,
            timeout=timeout,
            what="the node is connected",
        )
        assert found is not None
        return found

    def wait_detached(self) -> None:
        eventually(lambda: self.address is None, what="the node is let go")

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """What a worker shows."""
        return (
            ("X-Weft-Node", self.client_id),
            ("X-Weft-Model", self.model),
            ("X-Weft-Key", relay_key(SECRET_KEY, self.client_id)),
        )

    def ask(
        self,
        path: str = "/v1/chat/completions",
        *,
        method: str = "POST",
        body: bytes | None = b"{}",
        headers: tuple[tuple[str, str], ...] = (),
        address: str | None = None,
    ) -> Response:
        """One request as a worker sends it."""
        request = Request(
            parse_url(f"http://engine.relay{path}"),
            method,
            (*self.headers, *headers),
            body,
            via=address or self.wait_attached(),
            response_timeout_seconds=60,
        )
        return self.client.send(request)

    def socket(self) -> socket.socket:
        """A plain connection to the process that holds it."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(60)
        sock.connect(self.wait_attached().removeprefix("unix:"))
        return sock


def _no_connection(*_args: object) -> socket.socket:
    raise AssertionError("everything goes through the relay")


def add_node(hub: RunningHub) -> RelayedNode:
    """A node with a token, whose replica has no URL."""
    served = hub.serve(endpoint_url=None)
    token = new_secret("", 32)
    with hub.sessions.begin() as session:
        node = session.get_one(Node, served.node_id)
        node.token_hash = hash_secret(token)
        node.updated_at = utc_now()
        return RelayedNode(hub, node.id, node.client_id, token, served.model)


@pytest.fixture(scope="session")
def relay_hub(make_hub: MakeHub) -> RunningHub:
    """A hub for all tests that break nothing of it."""
    return make_hub(FIRST_TOKEN_TIMEOUT_S="5", IDLE_TIMEOUT_S="5")


@pytest.fixture
def node(relay_hub: RunningHub) -> Iterator[RelayedNode]:
    node = add_node(relay_hub)
    yield node
    node.client.close()


Connect = Callable[..., RelayClient]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Starts agents' relays that end with the test: `connect(node, server.url)`."""
    with ExitStack() as stack:

        def start(
            node: RelayedNode,
            engine_url: str,
            *,
            api_key: str | None = None,
            on_fatal: Callable[[NotEnrolled], None] = lambda _error: None,
        ) -> RelayClient:
            address = EngineAddress(engine_url, api_key)
            client = RelayClient(
                HubClient(
                    Identity(hub=node.hub.url, client_id=node.client_id, node_token=node.token),
                    enrolment_token=None,
                    enrolment=dict,
                    on_identity=lambda _identity: None,
                ),
                find=lambda name: address if name == node.model else None,
                on_fatal=on_fatal,
            )
            client.start()
            stack.callback(client.stop)
            node.wait_attached()
            return client

        yield start


class RawAgent:
    """An agent that sends what the test wants, byte for byte."""

    def __init__(self, node: RelayedNode) -> None:
        self._socket: Any = websocket.create_connection(
            node.hub.url.replace("http", "ws", 1) + "/agent/v1/relay",
            header=[f"Authorization: Bearer {node.token}"],
            timeout=60,
            suppress_origin=True,
        )

    def send(self, kind: int, stream: int, payload: Any = b"") -> None:
        """One frame; a payload that is no bytes is sent as JSON."""
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self._socket.send_binary(struct.pack("!BI", kind, stream) + data)

    def send_raw(self, message: bytes) -> None:
        self._socket.send_binary(message)

    def receive(self, kind: int) -> tuple[int, bytes]:
        """Stream and payload of the next frame of this kind."""
        while True:
            data = self._socket.recv()
            found, stream = struct.unpack("!BI", data[:5])
            if found == kind:
                return stream, data[5:]

    @property
    def socket(self) -> Any:
        return self._socket

    def wait_closed(self) -> int | None:
        """Wait until the hub has closed; the code that it gave."""
        code = None
        try:
            while True:
                opcode, data = self._socket.recv_data()
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    code = int.from_bytes(data[:2], "big")
        except (websocket.WebSocketException, OSError):
            return code

    def close(self) -> None:
        self._socket.shutdown()


@pytest.fixture
def raw_agent(node: RelayedNode) -> Iterator[RawAgent]:
    """A raw agent of `node`, connected."""
    agent = RawAgent(node)
    node.wait_attached()
    yield agent
    agent.close()
