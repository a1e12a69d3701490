"""A hub of real processes (web, worker), an engine that we script, and Chromium.

One hub serves all tests of a worker of pytest-xdist. Each finds it empty, and gets a fresh
browser, fresh people and an engine of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from axe_playwright_python.sync_playwright import Axe
from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    expect,
)
from sqlalchemy.orm import Session, sessionmaker

from app.config import Settings
from app.web.auth import SESSION_SECRET
from tests.dashboard.conftest import Rows
from tests.fakes.http_server import FakeServer
from tests.fakes.openai_engine import MODEL, OpenAIEngine, serve
from tests.fixtures.accounts import PASSWORD, Person
from tests.fixtures.google import CLIENT_ID, Issuer, running_issuer
from tests.fixtures.hub import SECRET_KEY, MakeHub, RunningHub

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 860}
AXE = Axe().axe_script
# Colours change at once, so that axe does not see them on their way from theme to theme.
# Of a list's many rows of one kind the first ones are enough: contrasts take long to find.
HOLD_STILL = """() => {
    const still = new CSSStyleSheet();
    still.replaceSync("*, *::before, *::after { transition: none !important; }");
    document.adoptedStyleSheets.push(still);
    document.querySelectorAll(":is(tbody, ul, ol, .log > div) > :nth-child(n + 13)")
        .forEach((row) => row.remove());
}"""
FIND_PROBLEMS = """async (rules) => {
    const options = {resultTypes: ["violations"]};
    if (rules) options.runOnly = {type: "rule", values: rules};
    const found = (await axe.run(document, options)).violations;
    return found.map((one) => `${one.id} ${one.nodes.map((node) => node.html.slice(0, 200))}`);
}"""
REFRESH_SECONDS = 5  # of live parts
expect.set_options(timeout=30_000)


@dataclass
class Hub:
    """A running hub and the engine behind it."""

    url: str
    engine: OpenAIEngine


@pytest.fixture(scope="session")
def shared_issuer() -> Iterator[Issuer]:
    """Who signs in for Google, as long as the hub runs."""
    with running_issuer() as found:
        yield found


@pytest.fixture
def issuer(shared_issuer: Issuer) -> Iterator[Issuer]:
    """The hub's issuer, which denies nothing to begin with."""
    yield shared_issuer
    shared_issuer.denies = False


@pytest.fixture(scope="session")
def running(make_hub: MakeHub, shared_issuer: Issuer) -> RunningHub:
    """The web and worker processes."""
    return make_hub(
        OFFLINE_AFTER_S="3600",
        GOOGLE_CLIENT_ID=CLIENT_ID,
        GOOGLE_CERTS_URL=shared_issuer.url,
        GOOGLE_AUTHORIZE_URL=shared_issuer.authorize_url,
    )


@pytest.fixture
def sessions(running: RunningHub) -> Iterator[sessionmaker[Session]]:
    """Sessions of the hub's database, which is empty again after the test."""
    yield running.sessions
    running.clean()


@pytest.fixture
def settings(running: RunningHub) -> Settings:
    """The hub's settings."""
    return Settings.from_env(running.environment)


@pytest.fixture
def engine() -> Iterator[tuple[OpenAIEngine, FakeServer]]:
    """An engine whose answers the test decides."""
    behaviour = OpenAIEngine()
    with serve(behaviour) as server:
        yield behaviour, server


@pytest.fixture
def rows(sessions: sessionmaker[Session]) -> Rows:
    """Makes rows."""
    return Rows(sessions)


@pytest.fixture
def hub(
    running: RunningHub, engine: tuple[OpenAIEngine, FakeServer], rows: Rows, owner: Person
) -> Hub:
    """The hub with one node online, which has one model."""
    behaviour, server = engine
    node = rows.node(owner, "atelier")
    rows.device(node)
    rows.replica(node, MODEL, endpoint_url=server.url)
    return Hub(running.url, behaviour)


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

    def make(*, person: Person | None = None) -> Page:
        context = chromium.new_context(
            base_url=hub.url, viewport=DESK, color_scheme="light",  # type: ignore[arg-type]
            permissions=["clipboard-read", "clipboard-write"],
        )  # fmt: skip
        context.set_default_timeout(30_000)
        contexts.append(context)
        if person is not None:
            context.add_cookies([{"name": "weft", "value": _cookie(person), "url": hub.url}])
        page = context.new_page()
        page.clock.install()
        page.on("console", lambda said: complaints.extend(serious(said)))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield make
    for context in contexts:
        context.close()
    assert complaints == []


def _cookie(person: Person) -> str:
    """What signing in leaves in a browser."""
    app = Flask(__name__)
    app.secret_key = SECRET_KEY
    signer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert signer is not None
    return str(signer.dumps({SESSION_SECRET: person.session_secret}))


@pytest.fixture
def page(new_page: OpenPage, owner: Person) -> Page:
    """The owner's browser, signed in."""
    return new_page(person=owner)


def let_time_pass(page: Page) -> None:
    """Move the page's clock on to the next refresh of its live parts."""
    page.clock.fast_forward(REFRESH_SECONDS * 1000)


def sign_in(page: Page, person: Person) -> None:
    """Sign in as people do."""
    page.goto("/sign-in")
    page.get_by_label("E-mail or user name").fill(person.username)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/")


# Theme, size, and the rules to check there; None: all. Only contrasts depend on the theme.
CONTRASTS = ["color-contrast", "link-in-text-block"]
LOOKS = (
    ("light", DESK, None), ("dark", DESK, CONTRASTS),
    ("dark", PHONE, None), ("light", PHONE, CONTRASTS),
)  # fmt: skip


def look(page: Page, path: str) -> list[str]:
    """What a ruler and axe (WCAG 2.2 AA) find wrong, in both themes, on desk and phone."""
    page.locator("h1").wait_for()
    found = []
    for size in (DESK, PHONE):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > page.evaluate("document.documentElement.clientWidth"):
            found.append(f"{path}: {width} px wide where there are {size['width']}")
    page.evaluate(HOLD_STILL)
    page.evaluate(AXE)
    for theme, size, rules in LOOKS:
        page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        page.set_viewport_size(size)  # type: ignore[arg-type]
        where = f"{path} {theme} {size['width']}"
        found += [f"{where}: {problem}" for problem in page.evaluate(FIND_PROBLEMS, rules)]
    return found
