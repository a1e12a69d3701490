"""A hub of real processes (web, worker), an engine that we script, and Chromium."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    expect,
    sync_playwright,
)

from app.config import Settings, child_environment
from tests.dashboard.conftest import Rows
from tests.fakes.http_server import FakeServer
from tests.fakes.openai_engine import MODEL, OpenAIEngine, serve
from tests.fixtures.accounts import PASSWORD, Person
from tests.fixtures.waiting import eventually

ROOT = Path(__file__).parents[2]
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 860}
expect.set_options(timeout=20_000)  # live parts are refreshed every 5 seconds


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@dataclass
class Hub:
    """A running hub and the engine behind it."""

    url: str
    engine: OpenAIEngine


@pytest.fixture
def engine() -> Iterator[tuple[OpenAIEngine, FakeServer]]:
    """An engine whose answers the test decides."""
    behaviour = OpenAIEngine()
    with serve(behaviour) as server:
        yield behaviour, server


@pytest.fixture
def rows(sessions: object) -> Rows:
    """Makes rows."""
    return Rows(sessions)  # type: ignore[arg-type]


@pytest.fixture
def hub(
    settings: Settings, engine: tuple[OpenAIEngine, FakeServer], rows: Rows, owner: Person,
    tmp_path: Path,
) -> Iterator[Hub]:  # fmt: skip
    """Web and worker processes, one node online with one model."""
    behaviour, server = engine
    node = rows.node(owner, "atelier")
    rows.device(node)
    rows.replica(node, MODEL, endpoint_url=server.url)
    port = free_port()
    environment = child_environment(
        {
            "DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url,
            "SECRET_KEY": settings.secret_key, "WEFT_DATA_DIR": str(settings.data_dir),
            "WEFT_PORT": str(port), "WEFT_ARGON2_PROFILE": "cheapest", "OFFLINE_AFTER_S": "3600",
            "ALLOWED_NODE_NETWORKS": "127.0.0.0/8", "WEFT_LOCAL_NODE": "0",
            "GOOGLE_CLIENT_ID": settings.google_client_id,
            "GOOGLE_CERTS_URL": settings.google_certs_url,
            "GOOGLE_AUTHORIZE_URL": settings.google_authorize_url,
        }
    )  # fmt: skip
    web = ("gunicorn", "--config", "app/local/gunicorn_conf.py", "wsgi:app")
    with (tmp_path / "hub.log").open("wb") as log:
        started = [
            subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            for command in (("worker",), web)
        ]
        try:
            url = f"http://127.0.0.1:{port}"
            eventually(lambda: is_ready(url), timeout=60, what=f"the hub is ready ({log.name})")
            yield Hub(url, behaviour)
        finally:
            for process in started:
                os.killpg(process.pid, signal.SIGKILL)  # gunicorn's own children too
            for process in started:
                process.wait()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The machine's own Chromium."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


def serious(said: ConsoleMessage) -> list[str]:
    """What the console says, when it is an error that the test did not ask for."""
    is_refusal = "status of 4" in said.text and "/static/" not in said.location["url"]
    return [said.text] if said.type == "error" and not is_refusal else []


OpenPage = Callable[..., Page]


@pytest.fixture
def new_page(chromium: Browser, hub: Hub) -> Iterator[OpenPage]:
    """Open a fresh browser; what its console complains about fails the test."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def make(*, theme: str = "light", size: dict[str, int] | None = None) -> Page:
        context = chromium.new_context(
            base_url=hub.url, viewport=size or DESK, color_scheme=theme,  # type: ignore[arg-type]
            permissions=["clipboard-read", "clipboard-write"],
        )  # fmt: skip
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: complaints.extend(serious(said)))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield make
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(new_page: OpenPage, owner: Person) -> Page:
    """The owner's browser, signed in."""
    opened = new_page()
    sign_in(opened, owner)
    return opened


def sign_in(page: Page, person: Person) -> None:
    page.goto("/sign-in")
    page.get_by_label("E-mail or user name").fill(person.username)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/")
