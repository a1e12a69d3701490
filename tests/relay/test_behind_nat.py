"""A machine that nobody can reach serves a stream: agent and engine in a network of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.core.clock import utc_now
from app.core.models import Account, Node, Replica
from app.core.services.enrolment import create_enrolment_token
from tests.fixtures.hub import MakeHub, RunningHub
from tests.fixtures.waiting import eventually
from tests.relay.conftest import RelayedNode
from tests.relay.test_lifecycle import Chat

ROOT = Path(__file__).parents[2]
MODEL = "behind-nat"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        (os.geteuid() != 0 or shutil.which("ip") is None) and not os.environ.get("CI"),
        reason="network namespaces need root and iproute2",
    ),
]


class Namespace:
    """A network with one cable to this machine, on which it accepts nothing from outside."""

    def __init__(self) -> None:
        number = os.getpid() % 60_000
        third, fourth = number // 250, number % 63 * 4
        self.name, self._cable = f"weft-{number}", f"wo{number}"
        self.outer = f"10.{213 + third // 256}.{third % 256}.{fourth + 1}"
        self.inner = f"10.{213 + third // 256}.{third % 256}.{fourth + 2}"

    def __enter__(self) -> Namespace:
        peer = f"wi{os.getpid() % 60_000}"
        _ip("netns", "add", self.name)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", peer)
        _ip("link", "set", peer, "netns", self.name)
        _ip("addr", "add", f"{self.outer}/30", "dev", self._cable)
        _ip("link", "set", self._cable, "up")
        for link, address in (("lo", None), (peer, f"{self.inner}/30")):
            if address:
                _ip("-n", self.name, "addr", "add", address, "dev", link)
            _ip("-n", self.name, "link", "set", link, "up")
        return self

    def __exit__(self, *_: object) -> None:
        _ip("netns", "del", self.name)

    def command(self, *command: str) -> list[str]:
        """The command as it runs in there."""
        return ["ip", "netns", "exec", self.name, *command]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace() as namespace:
        yield namespace


@pytest.fixture
def hub(make_hub: MakeHub) -> Iterator[RunningHub]:
    hub = make_hub(WEFT_HOST="0.0.0.0", AUTO_APPROVE_PROVIDERS="1")  # noqa: S104
    yield hub
    hub.stop()


def enrolment_token(hub: RunningHub) -> str:
    owner = hub.caller().id
    with hub.sessions.begin() as session:
        account = session.get_one(Account, owner)
        return create_enrolment_token(session, account, now=utc_now())[1]


def the_node(hub: RunningHub) -> RelayedNode | None:
    with hub.sessions() as session:
        query = sa.select(Node).join(Replica).where(Replica.state == "ready")
        node = session.scalar(query)
        return node and RelayedNode(hub, node.id, node.client_id, "", MODEL)


def reaches(host: str, port: int) -> bool:
    """Whether this machine gets a connection; asked by a program, since tests may not."""
    code = f"import socket; socket.create_connection(({host!r}, {port}), 3)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    return done.returncode == 0


def test_a_node_that_nobody_can_reach_serves_a_stream(
    hub: RunningHub, namespace: Namespace, tmp_path: Path
) -> None:
    port = hub.url.rsplit(":", 1)[1]
    with ExitStack() as stack:

        def start(*command: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                namespace.command(sys.executable, "-m", *command),
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process

        engine = start("tests.relay.engine_process")
        assert engine.stdout is not None
        engine_port = int(engine.stdout.readline())
        start(
            "agent", "--hub", f"http://{namespace.outer}:{port}",
            "--token", enrolment_token(hub), "--state-dir", str(tmp_path / "state"),
            "--endpoint", f"http://127.0.0.1:{engine_port}", "--model", MODEL,
        )  # fmt: skip
        node = eventually(lambda: the_node(hub), timeout=60, what="a ready replica")
        assert node is not None
        node.wait_attached()
        assert not reaches(namespace.inner, engine_port)

        chat = Chat(node)

        assert chat.done.result(timeout=60) == 200
        assert chat.text == "Hello world"
