"""Connections come and go: killed processes, newer connections, revoked tokens, clean stops."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx2 as httpx
import psutil
import pytest
import sqlalchemy as sa

from app.core.clock import utc_now
from app.core.ids import hash_secret
from app.core.models import Node, Replica
from tests.fakes.http_server import FakeServer
from tests.fakes.openai_engine import OpenAIEngine
from tests.fixtures.hub import MakeHub, RunningHub
from tests.fixtures.waiting import eventually
from tests.relay.conftest import Connect, RawAgent, RelayedNode, add_node

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("relay-lifecycle")]

SLOW_TOKENS = tuple("abcdefghij")


@pytest.fixture(scope="module")
def wide_hub(make_hub: MakeHub) -> Iterator[RunningHub]:
    """A hub with two web processes, quick to notice the dead."""
    hub = make_hub(WEFT_WEB_WORKERS="2", RUN_LEASE_S="2", FIRST_TOKEN_TIMEOUT_S="5")
    yield hub
    hub.stop()


@pytest.fixture
def own_hub(wide_hub: RunningHub) -> RunningHub:
    """The hub, whose processes this test may kill: the next test waits for new ones."""
    wide_hub.mend()
    eventually(lambda: len(web_processes(wide_hub)) == 2, timeout=60)
    return wide_hub


@pytest.fixture
def own_node(own_hub: RunningHub) -> Iterator[RelayedNode]:
    node = add_node(own_hub)
    yield node
    node.client.close()


@pytest.fixture
def engine() -> OpenAIEngine:
    return OpenAIEngine(flavour="vllm")


@pytest.fixture
def server(engine: OpenAIEngine) -> Iterator[FakeServer]:
    with FakeServer(engine.handle) as server:
        yield server


class Chat:
    """A streamed chat at the hub's door, read in a thread."""

    def __init__(self, node: RelayedNode) -> None:
        self.frames: list[str] = []
        self.text = ""
        self.begun = threading.Event()
        caller = node.hub.caller()
        self._pool = ThreadPoolExecutor(1)
        self.done = self._pool.submit(self._read, node, caller.headers)
        self._pool.shutdown(wait=False)

    def _read(self, node: RelayedNode, headers: dict[str, str]) -> int:
        body = {
            "model": node.model, "stream": True,
            "messages": [{"role": "user", "content": "hi"}],
        }  # fmt: skip
        url = f"{node.hub.url}/v1/chat/completions"
        try:
            with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as answer:
                for line in answer.iter_lines():
                    self._take(line)
                return int(answer.status_code)
        except httpx.HTTPError:
            return 0

    def _take(self, line: str) -> None:
        if not line.startswith("data: {"):
            return
        self.frames.append(line)
        for choice in json.loads(line[6:]).get("choices", []):
            self.text += choice["delta"].get("content") or ""
        if self.text:
            self.begun.set()


def holder(node: RelayedNode) -> int:
    """The process that holds the node's connection."""
    address = node.wait_attached()
    return int(address.rsplit("relay-", 1)[1].split("-")[0])


def web_processes(hub: RunningHub) -> set[int]:
    return {child.pid for child in psutil.Process(hub.processes["web"].pid).children()}


def test_a_run_is_served_through_the_relay(
    own_node: RelayedNode, server: FakeServer, connect: Connect
) -> None:
    connect(own_node, server.url)

    chat = Chat(own_node)

    assert chat.done.result(timeout=60) == 200
    assert chat.text == "Hello world"
    assert own_node.hub.run_of(own_node.model).state == "succeeded"


def test_a_killed_web_process_ends_its_run_with_a_reason_and_the_node_comes_back(
    own_node: RelayedNode, server: FakeServer, engine: OpenAIEngine, connect: Connect
) -> None:
    engine.hangs_after_first = True
    connect(own_node, server.url)
    before = own_node.wait_attached()
    chat = Chat(own_node)
    assert chat.begun.wait(60)

    os.kill(holder(own_node), signal.SIGKILL)

    def has_ended() -> bool:
        return own_node.hub.run_of(own_node.model).state in {"failed", "cancelled"}

    eventually(has_ended)
    run = own_node.hub.run_of(own_node.model)
    assert run.error or run.state == "cancelled"  # its reader may have died with it
    assert run.answer_text == "Hel"
    own_node.wait_attached(not_at=before, timeout=15)
    engine.hangs_after_first = False
    again = Chat(own_node)
    assert again.done.result(timeout=60) == 200, own_node.hub.run_of(own_node.model).error
    assert again.text == "Hello world"


def test_a_lost_connection_moves_a_run_that_has_nothing_yet(
    own_hub: RunningHub, own_node: RelayedNode, server: FakeServer, engine: OpenAIEngine,
    connect: Connect,
) -> None:  # fmt: skip
    engine.keep_alive_comments, engine.keep_alive_seconds = 100, 0.2
    client = connect(own_node, server.url)
    chat = Chat(own_node)
    eventually(lambda: server.requests)
    own_hub.serve(model=own_node.model)  # another node, which is reached directly

    client.stop()

    assert chat.done.result(timeout=60) == 200
    assert chat.text == "Hello world"
    assert own_hub.run_of(own_node.model).attempt == 2


def test_what_a_dead_hub_left_is_forgotten_at_the_next_start(
    own_hub: RunningHub, own_node: RelayedNode
) -> None:
    agent = RawAgent(own_node)
    left = own_node.wait_attached().removeprefix("unix:")
    own_hub.kill("web")
    agent.close()
    assert own_node.address is not None
    assert os.path.exists(left)

    own_hub.start("web")
    own_hub.wait_ready()

    own_node.wait_detached()
    eventually(lambda: not os.path.exists(left))


def test_the_newer_connection_of_a_node_replaces_the_older_wherever_that_is(
    own_hub: RunningHub, own_node: RelayedNode
) -> None:
    older = RawAgent(own_node)
    held = own_node.wait_attached()
    newer = [RawAgent(own_node)]
    while own_node.address == held and len(newer) < 50:  # until the other process has one
        newer.append(RawAgent(own_node))
        eventually(lambda: newer[-1].socket.connected)

    assert older.wait_closed() == 1008
    assert own_node.address is not None
    for agent in newer[:-1]:
        assert agent.wait_closed() == 1008
    newer[-1].send(9, 1, b"still here")
    assert newer[-1].receive(10) == (1, b"still here")
    for agent in (older, *newer):
        agent.close()


def revoke(node: RelayedNode, **changes: object) -> None:
    with node.hub.sessions.begin() as session:
        session.execute(
            sa.update(Node)
            .where(Node.id == node.node_id)
            .values(updated_at=utc_now(), **changes)
        )


@pytest.mark.parametrize("how", ["new token", "removed"])
def test_a_revoked_token_ends_its_connection_at_once(
    own_hub: RunningHub, own_node: RelayedNode, how: str
) -> None:
    agent = RawAgent(own_node)
    own_node.wait_attached()
    agent.socket.settimeout(5)  # a second, and patience with a busy machine

    if how == "removed":
        revoke(own_node, removed_at=utc_now())
    else:
        revoke(own_node, token_hash=hash_secret("another"))

    assert agent.wait_closed() == 1008
    with pytest.raises(Exception, match="401"):
        RawAgent(own_node)
    agent.close()


def test_a_new_connection_forgets_that_the_engine_could_not_be_reached(
    own_hub: RunningHub, own_node: RelayedNode
) -> None:
    with own_hub.sessions.begin() as session:
        session.execute(
            sa.update(Replica)
            .where(Replica.node_id == own_node.node_id)
            .values(failures=9, backoff_until=utc_now() + timedelta(hours=1))
        )

    agent = RawAgent(own_node)
    own_node.wait_attached()

    def failures() -> int:
        with own_hub.sessions() as session:
            query = sa.select(Replica.failures).where(Replica.node_id == own_node.node_id)
            return session.scalar(query) or 0

    eventually(lambda: failures() == 0)
    agent.close()


def test_a_stopping_process_lets_streams_end_and_its_agents_go(
    own_node: RelayedNode, server: FakeServer, engine: OpenAIEngine, connect: Connect
) -> None:
    engine.tokens = SLOW_TOKENS
    engine.keep_alive_comments, engine.keep_alive_seconds = 10, 0.2
    connect(own_node, server.url)
    before = own_node.wait_attached()
    answer = own_node.ask(body=b'{"messages":[],"stream":true}')
    lines = answer.lines()
    next(lines)

    os.kill(holder(own_node), signal.SIGTERM)

    assert b"[DONE]" in b"".join(lines)
    own_node.wait_attached(not_at=before, timeout=20)


def test_a_plain_request_is_told_what_this_address_speaks(own_node: RelayedNode) -> None:
    headers = {"Authorization": f"Bearer {own_node.token}"}

    answer = httpx.get(f"{own_node.hub.url}/agent/v1/relay", headers=headers)

    assert answer.status_code == 400
    assert "WebSocket" in answer.json()["detail"]
    assert httpx.get(f"{own_node.hub.url}/agent/v1/relay").status_code == 401


def test_over_tcp_between_hosts(
    make_hub: MakeHub, connect: Connect, server: FakeServer
) -> None:
    hub = make_hub(WEFT_RELAY_HOST="127.0.0.1")
    node = add_node(hub)
    connect(node, server.url)

    assert node.wait_attached().startswith("127.0.0.1:")
    chat = Chat(node)
    assert chat.done.result(timeout=60) == 200
    assert chat.text == "Hello world"
    node.client.close()
    hub.stop()
