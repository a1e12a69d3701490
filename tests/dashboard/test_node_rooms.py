"""A node's own page, and joining a machine."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import redis
from flask import Flask
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.domain.beats import Beat, DeviceBeat, ReceivedBeat
from app.core.models import Node
from app.core.services import node_reports
from tests.dashboard.conftest import Browser, Rows
from tests.dashboard.test_rooms import visible
from tests.fixtures.accounts import Person


@pytest.fixture
def node(rows: Rows, owner: Person) -> Node:
    """A node of the owner's with one GPU and one model."""
    made = rows.node(owner, "atelier")
    rows.device(made, "RTX 4090")
    rows.replica(made, "smollm2")
    return made


def test_a_nodes_page_shows_what_it_measures(app: Flask, browser: Browser, node: Node) -> None:
    beat = Beat(
        cpu_usage=12.4, memory_usage=55.0,
        devices=[DeviceBeat(index=0, usage=71.0, mem_usage=40.0, temp=64.0, power_usage=310.0, power_limit_w=450.0)],
    )  # fmt: skip
    store: redis.Redis = app.extensions["weft_redis"]
    node_reports.keep_live(
        store, [ReceivedBeat(node.id, int(utc_now().timestamp() * 1000), beat)]
    )

    words = visible(browser.open(f"/nodes/{node.client_id}").text)
    listed = visible(browser.open("/nodes").text)

    assert "RTX 4090 24 GiB · 64 °C · 310 W of 450 W" in words
    assert "Load 71 %" in words
    assert "CPU 12 %" in words
    assert "Disk not reported" in words
    assert "RTX 4090 · 24 GiB · 71 % · 64 °C" in listed


def test_downloads_and_logs_are_shown(app: Flask, browser: Browser, node: Node) -> None:
    store: redis.Redis = app.extensions["weft_redis"]
    progress = node_reports.Progress("qwen", 50, 100, 50.0, 1_048_576, "Downloading", None)
    node_reports.keep_downloads(store, node.id, [progress], now=utc_now())
    line = node_reports.LogLine(utc_now(), "error", "<b>out of memory</b>")
    node_reports.keep_logs(store, node.id, source="engine", model_name="qwen", lines=[line])

    page = browser.open(f"/nodes/{node.client_id}").text

    assert "Downloading · 50 B of 100 B · 1 MiB/s · 1 s left" in visible(page)
    assert 'max="100" value="50"' in page
    assert "&lt;b&gt;out of memory&lt;/b&gt;" in page


def test_a_provider_sees_that_it_served_but_not_what_was_asked(
    browser: Browser, node: Node, rows: Rows, other: Person
) -> None:
    rows.run(
        other,
        prompt="a private question",
        answer_text="a private answer",
        node_id=node.id,
        output_tokens=42,
    )

    page = browser.open(f"/nodes/{node.client_id}").text

    assert "42" in visible(page)
    assert "private" not in page


def test_a_node_is_renamed_drained_and_brought_back(browser: Browser, node: Node) -> None:
    path = f"/nodes/{node.client_id}"

    assert browser.send(path, name="cellar").location == path
    assert "cellar" in browser.open(path).text
    browser.send(path, status="maintenance")
    assert "Maintenance" in visible(browser.part(path).text)
    browser.send(path, status="online")
    assert "Maintenance" not in visible(browser.part(path).text)
    assert browser.send(path, status="error").status_code == 400
    assert browser.send(path, name=" ").status_code == 400


def test_removing_a_node_asks_first(
    browser: Browser, node: Node, sessions: sessionmaker[Session]
) -> None:
    path = f"/nodes/{node.client_id}"

    assert "Remove “atelier”?" in browser.part(f"{path}/remove").text
    assert browser.open(path).status_code == 200

    assert browser.send(f"{path}/remove").location == "/nodes"
    assert browser.open(path).status_code == 404
    with sessions() as session:
        row = session.get(Node, node.id)
        assert row is not None
        assert row.removed_at is not None


def test_somebody_elses_node_is_not_there(
    node: Node, outsider: Person, signed_in: Callable[[Person], Browser]
) -> None:
    stranger, path = signed_in(outsider), f"/nodes/{node.client_id}"

    assert stranger.open(path).status_code == 404
    assert stranger.send(path, name="mine").status_code == 404
    assert stranger.open(f"{path}/remove").status_code == 404
    assert stranger.send(f"{path}/remove").status_code == 404
    assert stranger.open("/nodes/nonsense").status_code == 404


def test_a_machine_joins_with_the_command_that_is_shown(app: Flask, browser: Browser) -> None:
    answer = browser.send("/nodes/join", hours="1", uses="1")
    assert answer.status_code == 201
    found = re.search(r"--token (wn_[\w-]+)", answer.text)
    assert found
    assert found[1] not in browser.open("/nodes/join").text

    inventory = {"cpu_name": "x", "devices": []}
    joined = app.test_client().post(
        "/agent/v1/enrol",
        json={
            "name": "attic",
            "os_type": "Linux",
            "agent_version": "1",
            "inventory": inventory,
        },
        headers={"Authorization": f"Bearer {found[1]}"},
    )

    assert joined.status_code == 201
    assert "attic" in browser.open("/nodes").text


@pytest.mark.parametrize(
    "fields", [{"hours": "9999", "uses": "1"}, {"hours": "24", "uses": "0"}]
)
def test_a_token_has_limits(browser: Browser, fields: dict[str, str]) -> None:
    assert browser.send("/nodes/join", **fields).status_code == 400
