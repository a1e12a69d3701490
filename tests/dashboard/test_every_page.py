"""What holds for all pages: closed to visitors, no inline code, escaped, part or whole."""

from __future__ import annotations

import re

import pytest
from flask import Flask

from app.blueprints.dashboard.pages import OPEN_ENDPOINTS
from tests.dashboard.conftest import HOSTILE, Browser, Rows
from tests.fixtures.accounts import Person

ROOMS = (
    "/",
    "/playground",
    "/research",
    "/data",
    "/runs",
    "/nodes",
    "/points",
    "/models",
    "/apps",
    "/keys",
    "/account",
)
DOORS = ("/sign-in", "/sign-up")


def routes(app: Flask, method: str) -> list[tuple[str, str]]:
    """Path (ids made up) and endpoint of the dashboard's routes."""
    return [
        (re.sub(r"<[^>]+>", "5f" * 12, rule.rule), rule.endpoint)
        for rule in app.url_map.iter_rules()
        if rule.endpoint.startswith("dashboard.") and method in (rule.methods or ())
    ]


def test_visitors_are_sent_to_the_sign_in_and_back(app: Flask, visitor: Browser) -> None:
    closed = [path for path, name in routes(app, "GET") if name not in OPEN_ENDPOINTS]

    assert len(closed) > len(ROOMS)
    for path in closed:
        answer = visitor.open(path)
        assert (answer.status_code, answer.location) == (303, f"/sign-in?next={path}"), path


def test_a_visitors_part_is_refused_not_redirected(visitor: Browser) -> None:
    assert visitor.part("/runs").status_code == 401


def test_nothing_is_changed_without_a_csrf_token(app: Flask, browser: Browser) -> None:
    for path, _ in routes(app, "POST"):
        assert browser.client.post(path, data={"name": "x"}).status_code == 400, path


def test_nothing_is_changed_with_somebody_elses_csrf_token(
    app: Flask, browser: Browser, visitor: Browser
) -> None:
    token = visitor.csrf_token()

    for path, _ in routes(app, "POST"):
        assert browser.client.post(path, data={"csrf_token": token}).status_code == 400, path


@pytest.mark.parametrize("path", ROOMS)
def test_rooms_open(browser: Browser, path: str) -> None:
    answer = browser.open(path)

    assert answer.status_code == 200
    assert answer.text.count("<h1") == 1
    assert "aria-current=page" in answer.text
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/", "/runs", "/nodes"])
def test_htmx_gets_the_part_and_everybody_else_the_page(browser: Browser, path: str) -> None:
    part, whole = browser.part(path), browser.open(path)
    restored = browser.open(
        path, headers={"HX-Request": "true", "HX-History-Restore-Request": "true"}
    )
    boosted = browser.open(path, headers={"HX-Request": "true", "HX-Boosted": "true"})

    assert "<html" not in part.text
    assert all("<html" in answer.text for answer in (whole, restored, boosted))
    assert "HX-Request" in part.headers["Vary"]
    assert "HX-Request" in whole.headers["Vary"]


def inline_code(html: str) -> list[str]:
    """Everything in a page that a strict policy would refuse."""
    return re.findall(
        r"<script(?![^>]*\ssrc=)[^>]*>|<style|\sstyle=|\son\w+=\"|javascript:|hx-on|hx-vals=.?js:",
        html,
    )


@pytest.mark.parametrize(
    "path", [*ROOMS, *DOORS, "/account/sign-out-everywhere", "/nodes/join", "/no-such-page"]
)
def test_pages_hold_no_inline_code(
    browser: Browser, visitor: Browser, rows: Rows, owner: Person, path: str
) -> None:
    rows.replica(rows.node(owner))
    rows.run(owner)
    answer = (visitor if path in DOORS else browser).open(path)

    assert inline_code(answer.text) == []
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy


def test_the_check_for_inline_code_sees_it() -> None:
    page = '<script>x</script><p style="a"><b onclick="x"><script src="/a.js"></script>'

    assert len(inline_code(page)) == 3


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_as_text(
    browser: Browser, rows: Rows, owner: Person, text: str
) -> None:
    node = rows.node(owner, name=text[:64], os_type=text[:64])
    rows.device(node, name=text)
    rows.replica(node, model=text, state="failed", error=text)
    run = rows.run(
        owner, prompt=text, model_name=text, answer_text=text, error=text, state="failed",
        node_id=node.id, answer_extra={"reasoning": text},
    )  # fmt: skip
    browser.send("/keys", name=text)

    for path in (
        "/",
        "/runs",
        f"/runs/{run.uid}",
        "/nodes",
        f"/nodes/{node.client_id}",
        "/keys",
    ):
        page = browser.open(path).text
        assert text not in page, path
        assert inline_code(page) == [], path
        assert "49" not in re.findall(r"<td[^>]*>([^<]*)</td>", page)


def test_assets_are_ours_and_carry_their_version(browser: Browser) -> None:
    page = browser.open("/").text
    links = re.findall(r'<(?:script|link)[^>]+(?:src|href)="([^"]+)"', page)

    assert len(links) >= 5
    for link in links:
        assert re.fullmatch(r"/static/[\w./-]+\?v=[0-9a-f]{12}", link), link
        with browser.open(link) as answer:
            assert answer.status_code == 200
            assert "immutable" in answer.headers["Cache-Control"]


def test_an_unknown_page_is_an_error_in_style(browser: Browser, visitor: Browser) -> None:
    for who in (browser, visitor):
        answer = who.open("/no-such-page")
        assert answer.status_code == 404
        assert "Nothing here" in answer.text
        assert "rooms.css" in answer.text


def test_scripts_get_errors_as_json(browser: Browser) -> None:
    answer = browser.send_json("/playground/stream", {"model": "", "messages": []})

    assert answer.status_code == 400
    assert answer.get_json()["code"] == "invalid"


def test_a_wrong_credential_is_an_error_page_not_a_crash(visitor: Browser) -> None:
    answer = visitor.open("/", headers={"Authorization": "Bearer sk-wrong"})

    assert answer.status_code == 401
    assert "rooms.css" in answer.text
