"""Joining a machine and looking after it, in a real browser."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

import pytest
import redis
from playwright.sync_api import Page, expect

from app.config import Settings
from app.core.models import Node
from tests.browser.conftest import Hub, OpenPage, let_time_pass, look, sign_in
from tests.dashboard import provider_rows
from tests.dashboard.conftest import Rows
from tests.fixtures.accounts import Person

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser-things")]

APKS = Path(__file__).parents[1] / "data" / "apks"
LONG = "a-machine-with-a-name-that-is-longer-than-a-phone-is-wide-000001"


@pytest.fixture
def store(settings: Settings) -> redis.Redis:
    """The hub's Redis."""
    return redis.Redis.from_url(settings.redis_url)


@pytest.fixture
def node(rows: Rows, owner: Person, admin: Person, store: redis.Redis) -> Node:
    """A busy node of the admin's, with all that a page can show."""
    made = rows.node(admin, LONG)
    rows.device(made, "NVIDIA GeForce RTX 4090")
    rows.replica(made, "qwen3-8b", state="failed", error="CUDA out of memory")
    rows.run(owner, node_id=made.id, output_tokens=42)
    provider_rows.add_beats(rows, made, count=700, device_values=[[0, 97.0, 81.5, 71.0, 401.5]])
    provider_rows.add_days(rows, made, count=20)
    provider_rows.add_points(rows, made, days=30)
    provider_rows.add_grant(rows, admin)
    provider_rows.report_beat(store, made)
    provider_rows.report_download(store, made, "qwen3-8b")
    provider_rows.report_log(store, made, *[f"line {n} " + "x" * 200 for n in range(80)])
    model = provider_rows.add_model(rows, "qwen3-8b", min_gpu_memory_gb=8)
    provider_rows.assign(rows, made, model)
    return made


def enrol(hub: Hub, secret: str) -> None:
    request = urllib.request.Request(
        f"{hub.url}/agent/v1/enrol",
        data=json.dumps({"name": "attic", "os_type": "Linux"}).encode(),
        headers={"Authorization": f"Bearer {secret}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 201


def test_the_page_shows_the_machine_as_soon_as_it_joins(page: Page, hub: Hub) -> None:
    page.goto("/nodes")
    page.get_by_role("link", name="Join a machine").click()
    page.get_by_role("button", name="Make the command").click()
    expect(page.get_by_text("Waiting for your machine…")).to_be_visible()
    page.get_by_role("button", name="Copy the command: Any machine").click()
    command = page.evaluate("navigator.clipboard.readText()")
    assert command.startswith(f"curl -fsSL {hub.url}/join.sh | sh -s -- --token wn_")

    enrol(hub, re.findall(r"wn_[\w-]+", command)[0])
    let_time_pass(page)

    joined = page.locator("#joined article")
    expect(joined).to_contain_text("attic has joined")
    expect(page.get_by_text("Waiting for your machine…")).to_have_count(0)
    joined.get_by_role("link", name="attic").click()
    expect(page.get_by_role("heading", name="attic", level=1)).to_be_visible()


def test_a_nodes_history_and_log_are_looked_at_without_a_reload(
    new_page: OpenPage, admin: Person, node: Node, store: redis.Redis
) -> None:
    page = new_page(person=admin)
    page.goto(f"/nodes/{node.client_id}")
    page.evaluate("window.isSamePage = true")
    charts = page.locator("#charts")
    expect(charts.locator("svg.chart-plot")).to_have_count(6)
    charts.get_by_role("link", name="30 days").click()
    expect(charts.locator(".segment[aria-current]")).to_have_text("30 days")
    expect(charts.locator("svg.chart-plot")).to_have_count(6)

    provider_rows.report_log(store, node, "<img src=x onerror=alert(1)> the engine is ready")
    let_time_pass(page)

    expect(page.locator("#log")).to_contain_text("onerror=alert(1)> the engine is ready")
    page.locator("#log").scroll_into_view_if_needed()
    expect(page.locator("#log .log-line").last).to_be_in_viewport()
    assert page.evaluate("window.isSamePage")


def test_an_admin_publishes_an_app(new_page: OpenPage, hub: Hub, admin: Person) -> None:
    page = new_page()
    sign_in(page, admin)
    page.goto("/apps")
    page.get_by_label("APK file").set_input_files(APKS / "weft-1.apk")
    page.get_by_role("button", name="Publish", exact=True).click()
    expect(page.get_by_role("status").filter(has_text="is published")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.path().read_bytes() == (APKS / "weft-1.apk").read_bytes()

    page.get_by_label("APK file").set_input_files(APKS / "weft-3-other-key.apk")
    page.get_by_role("button", name="Publish", exact=True).click()

    expect(page.locator("#apk-error")).to_contain_text("signed with another certificate")


def test_the_rooms_can_be_used_by_everybody_and_fit_a_phone(
    new_page: OpenPage, admin: Person, node: Node
) -> None:
    page = new_page(person=admin)
    problems: list[str] = []
    for path in (
        f"/nodes/{node.client_id}", "/nodes/join", "/points", "/models", "/models/new", "/apps",
        "/admin", "/admin/accounts", "/admin/nodes", "/admin/devices", "/admin/trail",
    ):  # fmt: skip
        page.goto(path)
        if path == "/nodes/join":
            page.get_by_role("button", name="Make the command").click()
            expect(page.get_by_text("Waiting for your machine…")).to_be_visible()
        problems += look(page, path)

    assert problems == []
