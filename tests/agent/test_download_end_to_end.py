"""A model that the hub sends to a node: a real hub, a real agent, a server that sends as told."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests

from app.core.clock import utc_now
from app.core.models import Account
from app.core.services.enrolment import create_enrolment_token
from tests.fakes.http_server import ClientGone, Exchange, FakeServer
from tests.fixtures.hub import Caller, MakeHub, RunningHub
from tests.fixtures.waiting import eventually

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MEBIBYTE = 2**20
PIECE = 64 * 1024
CONTENT = b"GGUF" + random.Random(3).randbytes(24 * MEBIBYTE)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Tap:
    """Serves one file in ranges, as many bytes of it as the test has let through."""

    def __init__(self) -> None:
        self.allowed = 0
        self.sent = 0
        self._changed = threading.Condition()

    def allow(self, more: int) -> None:
        with self._changed:
            self.allowed += more
            self._changed.notify_all()

    def handle(self, exchange: Exchange) -> None:
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", exchange.request.headers.get("range", ""))
        start = int(span[1]) if span else 0
        end = min(int(span[2] or len(CONTENT)) + 1, len(CONTENT)) if span else len(CONTENT)
        exchange.send(
            f'HTTP/1.1 {206 if span else 200} Said\r\netag: "one"\r\n'
            f"content-range: bytes {start}-{end - 1}/{len(CONTENT)}\r\n"
            f"content-length: {end - start}\r\n\r\n".encode()
        )
        for at in range(start, end, PIECE):
            piece = CONTENT[at : min(at + PIECE, end)]
            self._wait_for(len(piece), exchange)
            try:
                exchange.send(piece)
            except ClientGone:
                self.sent -= len(piece)
                raise

    def _wait_for(self, size: int, exchange: Exchange) -> None:
        while True:
            with self._changed:
                if self.sent + size <= self.allowed:
                    self.sent += size
                    return
                self._changed.wait(0.05)
            exchange.send(b"")  # ends this answer when its agent is dead
            if exchange._server.is_stopping:
                raise ClientGone


@pytest.fixture
def tap() -> Iterator[tuple[Tap, str]]:
    tap = Tap()
    with FakeServer(tap.handle) as server:
        yield tap, server.url


@pytest.fixture
def hub(make_hub: MakeHub) -> Iterator[RunningHub]:
    hub = make_hub(HEARTBEAT_S="1", AUTO_APPROVE_PROVIDERS="1")
    yield hub
    hub.stop()


StartAgent = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def start_agent(hub: RunningHub, admin: Caller, tmp_path: Path) -> Iterator[StartAgent]:
    started: list[subprocess.Popen[bytes]] = []
    with hub.sessions.begin() as session:
        account = session.get_one(Account, admin.id)
        token = create_enrolment_token(session, account, now=utc_now())[1]

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "agent", "--hub", hub.url, "--no-engine"]
        with (tmp_path / "agent.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, "--state-dir", str(tmp_path / "state")],
                cwd=ROOT, env={**os.environ, "WEFT_AGENT_TOKEN": token}, stdout=log, stderr=log,
            )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def admin(hub: RunningHub) -> Caller:
    return hub.caller(role="admin")


class Browser:
    """An admin's browser and API client."""

    def __init__(self, hub: RunningHub, person: Caller) -> None:
        self._url, self._headers = hub.url, person.headers
        self._session = requests.Session()
        self.post("/sign-in", login=person.username, password=person.password)

    def close(self) -> None:
        self._session.close()

    def open(self, path: str) -> str:
        answer = self._session.get(self._url + path, timeout=10)
        assert answer.status_code == 200, (path, answer.status_code)
        return answer.text

    def post(self, path: str, **fields: str) -> None:
        found = re.search(r'name="csrf-token" content="([^"]+)"', self.open("/sign-in"))
        assert found
        answer = self._session.post(
            self._url + path, data={"csrf_token": found[1], **fields}, timeout=10
        )
        assert answer.ok, answer.text

    def fabric(self, method: str, path: str, **values: Any) -> Any:
        where = {"params": values} if method == "GET" else {"json": values}
        answer = requests.request(
            method, self._url + path, headers=self._headers, timeout=10, **where
        )
        assert answer.ok, answer.text
        return answer.json()["data"]

    def send(self, model: str, url: str, client_id: str, **facts: Any) -> None:
        """Add a model to the catalogue and want it on the node."""
        self.fabric(
            "POST", "/api/models/insert", name=model, version="1", version_code=1,
            engine_type=6, download_url=url, **facts,
        )  # fmt: skip
        found = self.fabric("GET", "/api/models/get", is_active="true")
        [number] = [one["id"] for one in found if one["name"] == model]
        self.post(f"/models/{number}/send", client_id=client_id)

    def progress(self, client_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.fabric(
            "GET", "/api/user/model_download_progress", client_id=client_id
        )
        return found


def noted_bytes(folder: Path) -> int:
    """What the agent has written down of the download, to go on from."""
    notes = list(folder.rglob("*.part.json"))
    return sum(json.loads(notes[0].read_text())["chunks"]) if notes else 0


def test_a_sent_model_is_fetched_shown_and_resumed_and_a_false_one_fails(
    hub: RunningHub,
    admin: Caller,
    start_agent: StartAgent,
    tap: tuple[Tap, str],
    tmp_path: Path,
) -> None:
    server, url = tap
    with closing(Browser(hub, admin)) as browser:
        first = start_agent()

        def joined() -> str | None:
            nodes = browser.fabric("GET", "/api/user/client_list", user_id=admin.id)["devices"]
            return str(nodes[0]["client_id"]) if nodes else None

        client_id = str(eventually(joined, what="the agent joins"))
        browser.send(
            "big", f"{url}/big.gguf", client_id, checksum=SHA256, expected_size=len(CONTENT)
        )

        def shown() -> str | None:
            server.allow(PIECE if server.allowed < 12 * MEBIBYTE else 0)
            page = browser.open(f"/nodes/{client_id}")
            found = re.search(r"Downloading · [^<]* of 24 MiB · [^<]*/s · [^<]* left", page)
            return page if found else None

        page = eventually(shown, timeout=40, what="the bar and the time it takes yet")
        assert 'aria-label="Download of big"' in str(page)
        server.allow(12 * MEBIBYTE - server.allowed)
        eventually(lambda: noted_bytes(tmp_path) > 11 * MEBIBYTE)
        progress = eventually(
            lambda: one if (one := browser.progress(client_id))["downloaded_bytes"] else None
        )
        assert progress["model_name"] == "big"
        assert progress["total_bytes"] == len(CONTENT)
        assert 0 < progress["percentage"] < 60

        first.send_signal(signal.SIGKILL)
        first.wait()
        kept = noted_bytes(tmp_path)
        before = server.sent
        start_agent()
        server.allow(10 * len(CONTENT))
        eventually(
            lambda: browser.progress(client_id)["status"] == "Completed",
            timeout=30, what="the download is complete",
        )  # fmt: skip
        assert server.sent - before == len(CONTENT) - kept, "it went on where it was"
        [file] = [one for one in tmp_path.rglob("*.gguf") if one.is_file()]
        assert file.read_bytes() == CONTENT

        browser.send("false", f"{url}/false.gguf", client_id, checksum="0" * 64)
        failed = eventually(
            lambda: (
                one if (one := browser.progress(client_id))["status"] == "Failed" else None
            ),
            timeout=30, what="the download has failed",
        )  # fmt: skip
        assert failed["model_name"] == "false"
        assert "SHA-256" in failed["error"]
        assert failed["error"] in browser.open(f"/nodes/{client_id}").replace("&#39;", "'")
