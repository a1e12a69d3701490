"""Research in a real browser: the plan fills in, the report grows, and it stays."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Hub, look
from tests.fakes.http_server import FakeServer
from tests.fakes.openai_engine import OpenAIEngine, serve
from tests.research.engine import QUESTIONS, ResearchEngine, answer_to

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser-things")]


@pytest.fixture
def engine() -> Iterator[tuple[OpenAIEngine, FakeServer]]:
    """An engine that plans, answers and concludes, word by word."""
    behaviour = ResearchEngine(pause_seconds=0.05)
    with serve(behaviour) as server:
        yield behaviour, server


def ask(page: Page, question: str) -> None:
    page.goto("/research")
    page.get_by_label("What do you want to know?").fill(question)
    page.get_by_role("button", name="Start the research").click()
    page.wait_for_url("**/research/*")


def test_a_report_grows_before_the_readers_eyes(page: Page, hub: Hub) -> None:
    ask(page, "Tell me about the tower.")

    expect(page.locator("[data-step='plan'] .dot-ok")).to_have_count(1)
    expect(page.locator(".timeline li")).to_have_count(6)
    expect(page.locator("#report")).to_contain_text(f"About '{QUESTIONS[0]}'")
    expect(page.get_by_role("heading", name="Finished")).to_be_visible(timeout=30_000)
    expect(page.locator("#report h2")).to_have_text(["Plan", *QUESTIONS, "Conclusion"])
    assert answer_to(QUESTIONS[2]).replace("[1]", "").split(" [2]")[0].split()[0] in (
        page.locator("#report").inner_text()
    )
    assert look(page, "/research") == []

    with page.expect_download() as download:
        page.get_by_role("link", name="PDF").click()
    assert download.value.suggested_filename.endswith(".pdf")


def test_a_reader_who_leaves_finds_the_report_later(page: Page, hub: Hub) -> None:
    ask(page, "Tell me about the tower.")
    expect(page.locator("#report")).to_contain_text("Plan")
    page.goto("/")

    page.goto("/research")
    page.get_by_role("link", name="Tell me about the tower.").click()
    expect(page.get_by_role("heading", name="Finished")).to_be_visible(timeout=30_000)
    expect(page.locator("#report")).to_contain_text("Conclusion")

    page.get_by_role("link", name="Delete").click()
    page.get_by_role("button", name="Delete it").click()
    expect(page.get_by_text("No research yet")).to_be_visible()
