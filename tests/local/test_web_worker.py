"""How the web server stops, with a real gunicorn."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.local.web_worker import Address
from tests.fixtures.ports import free_port
from tests.fixtures.waiting import eventually

ROOT = Path(__file__).parents[2]
# Far below what the stock worker waits for an idle connection here.
STOP_SECONDS = 20
PATIENCE = "600"


class Server:
    """A gunicorn with our worker, which would wait very long for whoever is silent."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.port = free_port()
        command = (
            "gunicorn", "--worker-class", "app.local.web_worker.WebWorker", "--keep-alive", PATIENCE,
            "--graceful-timeout", PATIENCE, "--no-control-socket", "--bind", f"127.0.0.1:{self.port}", "tests.fakes.slow_app:app",
        )  # fmt: skip
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command], cwd=ROOT, stdout=output, stderr=output
            )
        eventually(self.answers, what=f"the server ({log})")

    def answers(self) -> bool:
        url = f"http://127.0.0.1:{self.port}/"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.read() == b"done")
        return False

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=STOP_SECONDS)

    def refuses(self) -> bool:
        try:
            self.connect().close()
        except ConnectionRefusedError:
            return True
        return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "server.log")
    yield made
    if made.process.poll() is None:
        made.process.kill()
    made.process.wait()


def test_idle_connections_do_not_hold_it_up(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(server.connect()) for _ in range(3)]
        for connection in kept:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            read_until(connection, b"0\r\n\r\n")
        stack.enter_context(server.connect())  # has not asked anything yet

        server.process.send_signal(signal.SIGTERM)

        assert server.process.wait(timeout=STOP_SECONDS) == 0
        assert [connection.recv(1) for connection in kept] == [b""] * 3
    assert "Traceback" not in server.log.read_text()


def read_until(connection: socket.socket, end: bytes) -> None:
    """Read until this has come; a connection that ends before fails."""
    found = b""
    while not found.endswith(end):
        piece = connection.recv(4096)
        assert piece
        found += piece


def test_a_request_under_way_is_answered_to_its_end(server: Server, tmp_path: Path) -> None:
    release = tmp_path / "release"
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=STOP_SECONDS)
    with contextlib.closing(connection):
        connection.request("GET", f"/slow?{release}")
        answer = connection.getresponse()
        assert answer.read(6) == b"begun "

        server.process.send_signal(signal.SIGTERM)
        eventually(server.refuses, what="no new connections")
        assert server.process.poll() is None
        release.touch()

        assert answer.read() == b"done"
    assert server.process.wait(timeout=STOP_SECONDS) == 0


def test_a_listener_that_is_closed_is_known_to_who_came_before() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    name = listener.getsockname()
    address = Address(listener)

    listener.close()

    assert address.getsockname() == name
