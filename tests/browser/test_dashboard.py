"""What somebody does with the dashboard, from the first visit on."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Hub, OpenPage, let_time_pass, look
from tests.dashboard.conftest import HOSTILE, Rows
from tests.fakes.openai_engine import MODEL
from tests.fixtures.accounts import Person

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser-rooms")]

ROOMS = (
    "/", "/playground", "/research", "/data", "/runs", "/nodes", "/nodes/join", "/points", "/models",
    "/apps", "/keys", "/account",
    "/no-such-page",
)  # fmt: skip


def ask(page: Page, text: str) -> None:
    page.get_by_label("Your message").fill(text)
    page.keyboard.press("Enter")


def test_from_sign_up_to_the_first_answer(new_page: OpenPage, hub: Hub) -> None:
    page = new_page()
    page.goto("/")
    page.get_by_role("link", name="Create an account").click()
    page.get_by_label("User name").fill("grace")
    page.get_by_label("E-mail").fill("grace@example.org")
    page.get_by_label("Password").fill("a good password")
    page.get_by_role("button", name="Create the account").dblclick()  # is sent once
    expect(page.get_by_role("heading", name="Get started")).to_be_visible()

    page.get_by_role("link", name="Create a key").click()
    page.get_by_label("What is it for?").fill("laptop")
    page.get_by_role("button", name="Create the key").click()
    secret = page.locator("#secret").inner_text()
    page.get_by_role("button", name="Copy the key").click()
    assert secret.startswith("sk-")
    assert page.evaluate("navigator.clipboard.readText()") == secret
    page.goto("/keys")
    assert secret not in page.content()

    page.goto("/playground")
    ask(page, "Hello?")
    answer = page.locator(".turn-model .markdown")
    expect(answer).to_have_text("Hello world")
    expect(page.locator("[data-figures]")).to_contain_text("First token after")
    expect(page.locator("[data-figures]")).to_contain_text("3 tokens")

    page.get_by_role("link", name="Run details").click()
    expect(page.get_by_role("heading", name="Succeeded")).to_be_visible()
    expect(page.locator("#answer")).to_have_text("Hello world")


def test_a_conversation_has_turns_and_can_be_asked_again(page: Page, hub: Hub) -> None:
    page.goto("/playground")
    page.get_by_label("System prompt").fill("Be brief.")
    ask(page, "One?")
    expect(page.locator("[data-figures]").first).not_to_be_empty()
    hub.engine.tokens = ("Two", ".")
    ask(page, "Two?")
    expect(page.locator(".turn-model .markdown").nth(1)).to_have_text("Two.")

    hub.engine.tokens = ("Another", " one")
    page.get_by_role("button", name="Ask again").first.click()
    expect(page.locator(".turn-model .markdown")).to_have_text(["Another one"])
    expect(page.locator(".turn-user")).to_have_count(1)

    page.get_by_role("button", name="Copy as curl").click()
    curl = page.evaluate("navigator.clipboard.readText()")
    assert f"{hub.url}/v1/chat/completions" in curl
    assert f'"model": "{MODEL}"' in curl
    assert '"content": "Be brief."' in curl
    assert '"content": "One?"' in curl
    assert "Another one" not in curl


def test_an_answer_can_be_stopped_and_what_came_is_kept(page: Page, hub: Hub) -> None:
    hub.engine.hangs_after_first = True
    hub.engine.tokens = ("A beginning", " and an end")
    page.goto("/playground")
    ask(page, "Go on")
    expect(page.locator(".turn-model .markdown")).to_have_text("A beginning")

    page.get_by_role("button", name="Stop").click()

    expect(page.locator("[data-figures]")).to_contain_text("stopped")
    expect(page.locator(".turn-model .markdown")).to_have_text("A beginning")
    page.goto(page.locator("[data-run-link]").get_attribute("href") or "")
    expect(page.get_by_role("heading", name="Stopped")).to_be_visible()
    expect(page.locator("#answer")).to_have_text("A beginning")


def test_a_live_runs_page_fills_and_settles(
    page: Page, new_page: OpenPage, hub: Hub, owner: Person
) -> None:
    hub.engine.hangs_after_first = True
    page.goto("/playground")
    ask(page, "Slowly")
    link = page.locator("[data-run-link]")
    expect(link).to_be_visible()
    watcher = new_page(person=owner)
    watcher.goto(link.get_attribute("href") or "")
    expect(watcher.locator("#answer")).to_have_text("Hel")
    expect(watcher.get_by_role("heading", name="Running")).to_be_visible()

    watcher.get_by_role("button", name="Stop this run").click()

    expect(watcher.get_by_role("heading", name="Stopped")).to_be_visible()
    expect(page.locator("[data-figures]")).to_contain_text("stopped")


def test_an_engine_that_fails_first_is_told_in_the_conversation(
    page: Page, hub: Hub, rows: Rows
) -> None:
    page.goto("/playground")
    page.locator("#model").evaluate("(select) => { select.options[0].value = 'gone' }")
    ask(page, "Anybody?")

    expect(page.get_by_role("alert")).to_contain_text("does not exist")


def test_a_models_markup_stays_text(page: Page, hub: Hub) -> None:
    hostile = "\n\n".join(
        [
            *HOSTILE,
            "[click](javascript:alert(1)) [ok](https://example.org/) ![pixel](https://example.org/p.png)",
            "**bold** `code`\n\n```html\n<script>alert(2)</script>\n```",
        ]
    )
    hub.engine.tokens = tuple(re.findall(r"(?s).{1,9}", hostile))
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto("/playground")
    ask(page, "Attack me")
    expect(page.locator("[data-figures]")).not_to_be_empty()
    answer = page.locator(".turn-model .markdown")

    assert answer.locator("script, img, iframe, style").count() == 0
    links = answer.locator("a").evaluate_all("(all) => all.map((a) => a.href)")
    assert links == ["https://example.org/", "https://example.org/p.png"]
    assert answer.locator("strong").inner_text() == "bold"
    assert "<script>alert(2)</script>" in answer.locator("pre").inner_text()
    assert HOSTILE[0] in answer.inner_text()


def test_the_theme_is_chosen_and_kept(page: Page) -> None:
    page.goto("/account")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Dark").last.click()
    dark = page.evaluate(background)
    page.goto("/runs")

    assert light != dark
    assert page.evaluate(background) == dark
    expect(page.get_by_role("button", name="Dark").first).to_have_attribute(
        "aria-pressed", "true"
    )
    page.get_by_role("button", name="As the system").first.click()
    page.reload()
    assert page.evaluate(background) == light


def test_revoking_a_key_is_confirmed_in_a_dialog(page: Page) -> None:
    page.goto("/keys")
    page.get_by_role("link", name="Revoke test").click()
    dialog = page.get_by_role("dialog", name="Revoke “test”?")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()

    page.get_by_role("link", name="Revoke test").click()
    dialog.get_by_role("button", name="Revoke the key").click()

    expect(page.get_by_role("heading", name="No keys")).to_be_visible()


def test_the_overview_follows_the_network(page: Page, rows: Rows, owner: Person) -> None:
    page.goto("/")
    tile = page.locator(".tile", has_text="Nodes online")
    expect(tile.locator(".tile-value")).to_have_text("1")

    rows.node(owner, "second")
    let_time_pass(page)

    expect(tile.locator(".tile-value")).to_have_text("2")


def test_every_page_is_accessible_and_fits_a_phone(
    new_page: OpenPage, hub: Hub, rows: Rows, owner: Person
) -> None:
    run = rows.run(owner, answer_text="An answer. " * 40, error="It broke.", state="failed")
    rows.run(owner, prompt="word" * 60, state="running")
    node = rows.node(owner, "n" * 64).client_id
    visitor = new_page()
    mine = new_page(person=owner)
    rooms = (*ROOMS, f"/runs/{run.uid}", f"/nodes/{node}", "/account/sign-out-everywhere")
    problems: list[str] = []
    for path in ("/sign-in", "/sign-up"):
        visitor.goto(path)
        problems += look(visitor, path)
        assert visitor.get_by_role("link", name="Continue with Google").is_visible()
    for path in rooms:
        mine.goto(path)
        problems += look(mine, path)

    assert problems == []


def test_the_keyboard_reaches_everything(page: Page, hub: Hub) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Open the playground").first).to_be_focused()
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
