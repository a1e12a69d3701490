"""The provider's rooms: history, log, waiting for a machine, points, and whose they are."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.models import Account, Node
from app.core.services.node_history import SPANS, device_history, node_history
from tests.dashboard import provider_rows
from tests.dashboard.conftest import HOSTILE, Browser, Rows
from tests.dashboard.test_every_page import inline_code
from tests.dashboard.test_rooms import visible
from tests.fixtures.accounts import Person

SignedIn = Callable[[Person], Browser]


@pytest.fixture
def node(rows: Rows, owner: Person) -> Node:
    """A node of the owner's with a GPU."""
    made = rows.node(owner, "atelier")
    rows.device(made)
    return made


# ---- A node's history and log


@pytest.mark.parametrize("span", SPANS)
def test_a_chart_has_as_many_points_however_long_the_history(
    rows: Rows, node: Node, sessions: sessionmaker[Session], span: str
) -> None:
    with sessions() as session:
        empty = node_history(session, node.id, span, now=utc_now())
    now = provider_rows.add_beats(rows, node, count=1500)
    provider_rows.add_days(rows, node, count=90)

    with sessions() as session:
        full = node_history(session, node.id, span, now=now)

    assert len(full) == len(empty) <= 90
    assert all(point.cpu is None for point in empty)
    assert full[-1].cpu is not None
    assert [point.at for point in full] == sorted(point.at for point in full)


def test_a_point_is_the_mean_of_its_beats_and_bytes_a_second(
    rows: Rows, node: Node, sessions: sessionmaker[Session]
) -> None:
    now = provider_rows.add_beats(
        rows, node, count=1, cpu_usage=40.0, network_rx=240_000, network_tx=12_000
    )

    with sessions() as session:
        last = node_history(session, node.id, "1h", now=now)[-1]

    assert (last.cpu, last.received, last.sent) == (40.0, 2000.0, 100.0)


def test_the_history_of_another_node_is_not_mixed_in(
    rows: Rows, node: Node, owner: Person, sessions: sessionmaker[Session]
) -> None:
    provider_rows.add_beats(rows, rows.node(owner, "cellar"), count=40)

    with sessions() as session:
        points = node_history(session, node.id, "24h", now=utc_now())

    assert all(point.cpu is None for point in points)


@pytest.mark.parametrize("span", SPANS)
def test_each_gpus_history_is_the_mean_of_what_it_measured(
    rows: Rows, node: Node, owner: Person, sessions: sessionmaker[Session], span: str
) -> None:
    values = [[0, 50.0, 25.0, 61.5, 300.0], [1, None, None, 44.0, None]]
    now = provider_rows.add_beats(rows, node, count=1500, device_values=values)
    provider_rows.add_beats(
        rows, rows.node(owner, "cellar"), count=50, device_values=[[0, 1.0]]
    )

    with sessions() as session:
        points = node_history(session, node.id, span, now=now)
        first, second = device_history(session, node.id, span, now=now)

    assert (first.usage[-1], first.memory[-1], first.temperature[-1], first.power[-1]) == (
        50.0, 25.0, 61.5, 300.0
    )  # fmt: skip
    assert (second.usage[-1], second.temperature[-1]) == (None, 44.0)
    assert len(first.power) == len(points)
    if span != "30d":
        heard = [point.cpu is not None for point in points]
        # Of the first place that was heard of, the end alone may be; it needs no sample.
        begin = heard.index(True) + 1
        assert [value is not None for value in first.usage][begin:] == heard[begin:]


def test_gpus_are_charted_and_what_they_do_not_measure_is_not(
    browser: Browser, rows: Rows, node: Node
) -> None:
    rows.device(node, index=1, name="NVIDIA L4")
    values = [[0, 50.0, 25.0, 61.5, None], [1, 10.0, 5.0, 44.0, None], [7, 1.0, 1.0, 1.0, 1.0]]
    provider_rows.add_beats(rows, node, count=30, device_values=values)

    page = browser.open(f"/nodes/{node.client_id}").text

    for title in ("GPU usage (%)", "GPU memory (%)", "GPU temperature (°C)"):
        assert title in page
    assert "1 · NVIDIA L4" in page
    assert "GPU power" not in page


def test_more_gpus_than_colours_have_a_set_of_charts_each(
    browser: Browser, rows: Rows, node: Node
) -> None:
    for index in range(1, 8):
        rows.device(node, index=index, name="NVIDIA L4")
    values = [[index, 50.0, 25.0, 61.5, 70.0] for index in range(8)]
    provider_rows.add_beats(rows, node, count=30, device_values=values)

    page = browser.open(f"/nodes/{node.client_id}").text

    assert "GPU power, 0 to 3 (W)" in page
    assert "GPU power, 4 to 7 (W)" in page


def test_the_charts_follow_the_span_that_is_asked_for(
    browser: Browser, rows: Rows, node: Node
) -> None:
    provider_rows.add_beats(rows, node, count=30)
    path = f"/nodes/{node.client_id}"

    part = browser.part(f"{path}/charts?span=7d").text
    whole = browser.open(f"{path}?span=7d").text

    for page in (part, whole):
        assert re.search(r'span=7d"[^>]*aria-current=true', page)
        assert page.count('class="chart-plot"') == 2
    assert "No heartbeats in this span" not in whole
    assert "span=24h" in browser.open(f"{path}?span=nonsense").text


def test_a_node_without_beats_says_so(browser: Browser, node: Node) -> None:
    assert "No heartbeats in this span" in browser.open(f"/nodes/{node.client_id}").text


def test_the_log_is_shown_as_text_and_keeps_its_last_thousand_lines(
    app: Flask, browser: Browser, node: Node
) -> None:
    store = app.extensions["weft_redis"]
    for _ in range(3):
        provider_rows.report_log(store, node, *[f"line {n}" for n in range(500)])
    provider_rows.report_log(store, node, *HOSTILE, level="error")

    part = browser.part(f"/nodes/{node.client_id}/log").text

    assert store.llen(f"weft:node:{node.id}:logs") == 1000
    assert 0 < store.ttl(f"weft:node:{node.id}:logs") <= 86_400
    assert "line 499" in part
    assert all(text not in part for text in HOSTILE)
    assert inline_code(part) == []


# ---- Joining


def enrol(app: Flask, secret: str, name: str) -> None:
    answer = app.test_client().post(
        "/agent/v1/enrol",
        json={"name": name, "os_type": "Linux", "inventory": {"devices": []}},
        headers={"Authorization": f"Bearer {secret}"},
    )
    assert answer.status_code == 201


def test_the_page_waits_until_the_machine_is_there(app: Flask, browser: Browser) -> None:
    answer = browser.send("/nodes/join", hours="1", uses="1").text
    secret = re.search(r"--token (wn_[\w-]+)", answer)
    place = re.search(r'hx-get="(/nodes/join/\d+)"', answer)
    assert secret
    assert place
    assert "Waiting for your machine" in browser.part(place[1]).text

    enrol(app, secret[1], "attic <b>")
    part = browser.part(place[1]).text

    assert "attic &lt;b&gt;</a> has joined" in part
    assert "Waiting" not in part
    assert secret[1] not in part
    assert "<html" in browser.open(place[1]).text


def test_with_a_token_for_two_it_waits_for_the_second(app: Flask, browser: Browser) -> None:
    answer = browser.send("/nodes/join", hours="1", uses="2").text
    secret = re.search(r"--token (wn_[\w-]+)", answer)
    place = re.search(r'hx-get="(/nodes/join/\d+)"', answer)
    assert secret
    assert place

    enrol(app, secret[1], "one")
    assert "Waiting for more machines" in browser.part(place[1]).text
    enrol(app, secret[1], "two")
    part = browser.part(place[1]).text

    assert part.count("has joined") == 2
    assert "Waiting" not in part


def test_each_way_to_serve_has_its_command(browser: Browser) -> None:
    page = browser.send("/nodes/join", hours="1", uses="1").text

    assert page.count("/join.sh | sh -s -- --token wn_") == 3
    assert "--engine tgi" in page
    assert "--endpoint http://127.0.0.1:8001" in page


def test_nobody_else_sees_who_joined(
    browser: Browser, signed_in: SignedIn, outsider: Person, admin: Person
) -> None:
    place = re.search(r'"(/nodes/join/\d+)"', browser.send("/nodes/join").text)
    assert place

    assert browser.part(place[1]).status_code == 200
    assert signed_in(outsider).part(place[1]).status_code == 404
    assert signed_in(admin).part(place[1]).status_code == 404
    assert browser.part("/nodes/join/999999").status_code == 404


# ---- Whose things


@pytest.mark.parametrize("part", ["", "/charts", "/log", "/remove"])
def test_a_nodes_parts_are_the_owners_and_the_admins(
    browser: Browser, signed_in: SignedIn, node: Node, other: Person, outsider: Person,
    admin: Person, part: str,
) -> None:  # fmt: skip
    path = f"/nodes/{node.client_id}{part}"

    assert browser.open(path).status_code == 200
    assert signed_in(admin).open(path).status_code == 200
    assert signed_in(other).open(path).status_code == 404
    assert signed_in(outsider).open(path).status_code == 404


def test_only_an_admin_is_offered_to_mark_a_node(
    browser: Browser, signed_in: SignedIn, node: Node, admin: Person
) -> None:
    path = f"/nodes/{node.client_id}"

    assert "valid_status" not in browser.open(path).text
    assert "valid_status" in signed_in(admin).open(path).text


# ---- Points


def test_points_add_up_in_tiles_table_and_chart(
    browser: Browser, rows: Rows, node: Node, owner: Person
) -> None:
    provider_rows.add_points(rows, node, points_e4=230_000)
    provider_rows.add_points(rows, node, name="RTX 3060", index=1, points_e4=15_001)
    provider_rows.add_grant(rows, owner, amount_e4=100_000, note="earned by devices")

    words = visible(browser.open("/points").text)

    assert "Earned 24.50 by your devices" in words
    assert "Granted 10.00" in words
    assert "Held 14.50" in words
    assert "2 rows, 24.5001 points in all" in words
    assert "RTX 3060 device 1 · 0x2684" in words
    assert "+10.0000 earned by devices" in words


def test_points_that_nobody_approved_are_called_held(
    browser: Browser, rows: Rows, owner: Person, sessions: sessionmaker[Session]
) -> None:
    assert "Not a provider yet" in browser.open("/points").text
    with sessions.begin() as session:
        account = session.get_one(Account, owner.id)
        account.provider_registration_date = utc_now()
    assert "Waiting for approval" in browser.open("/points").text
    with sessions.begin() as session:
        session.get_one(Account, owner.id).is_gpu_provider_approved = True
    assert "Approved" in browser.open("/points").text


def test_the_table_is_filtered_and_paged(browser: Browser, rows: Rows, node: Node) -> None:
    provider_rows.add_points(rows, node, days=40)
    provider_rows.add_points(rows, node, name="RTX 3060", index=1, device_id=0x2504)
    since = provider_rows.today() - timedelta(days=9)

    assert "1–25 of 41 rows" in browser.open("/points").text
    assert "26–41 of 41" in browser.open("/points?page=2").text
    assert "10 rows," in browser.open(f"/points?start={since}&device_id=0x2684").text
    assert "1 row," in browser.open("/points?device_id=9476").text
    assert "0 rows," in browser.open("/points?client_name=cellar").text
    assert "41 rows," in browser.open("/points?client_name=ATEL").text


@pytest.mark.parametrize(
    "query", ["start=tomorrow", "end=2026-02-30", "device_id=x", "device_id=-1", "client_id=zz"]
)
def test_a_filter_that_means_nothing_is_refused(browser: Browser, query: str) -> None:
    assert browser.open(f"/points?{query}").status_code == 400
    assert browser.open(f"/points.csv?{query}").status_code == 400


def test_who_has_no_points_is_told_how_to_earn_them(browser: Browser, rows: Rows) -> None:
    page = browser.open("/points").text

    assert 'href="/nodes/join"' in page
    assert "Export as CSV" not in page
    assert "Day by day" in browser.open("/points?client_name=cellar").text


def test_nobody_sees_another_accounts_points(
    signed_in: SignedIn, rows: Rows, node: Node, outsider: Person
) -> None:
    provider_rows.add_points(rows, node)
    stranger = signed_in(outsider)

    assert "No points yet" in stranger.open("/points").text
    assert "0 rows," in stranger.open(f"/points?client_id={node.client_id}").text
    assert len(stranger.open("/points.csv").text.splitlines()) == 1


def test_the_export_has_every_row_and_runs_nothing(
    browser: Browser, rows: Rows, owner: Person
) -> None:
    names = ["=1+1", "+cmd", "-2", "@SUM(A1)", "\tx", "  =1", 'plain, "quoted"']
    for name in names:
        provider_rows.add_points(rows, rows.node(owner, name), days=2, name=name)

    answer = browser.open("/points.csv")
    lines = list(csv.DictReader(io.StringIO(answer.text)))

    assert answer.mimetype == "text/csv"
    assert "attachment" in answer.headers["Content-Disposition"]
    assert len(lines) == 14
    for line in lines:
        for cell in (line["client_name"], line["device_name"]):
            assert cell[0] not in "=+-@\t\r", cell
    assert {line["points"] for line in lines} == {"23.0000", "23.9000"}
    assert any(line["client_name"] == "'=1+1" for line in lines)
    assert any(line["device_name"] == 'plain, "quoted"' for line in lines)


def test_a_chart_of_many_devices_names_three_and_the_rest(
    browser: Browser, rows: Rows, node: Node
) -> None:
    for number in range(6):
        provider_rows.add_points(rows, node, name=f"GPU {number}", index=number)

    page = browser.open("/points").text

    assert "Other devices" in page
    assert page.count('class="swatch') == 4


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_text_in_the_points(
    browser: Browser, rows: Rows, owner: Person, text: str
) -> None:
    node = rows.node(owner, text[:64])
    provider_rows.add_points(rows, node, name=text)
    provider_rows.add_grant(rows, owner, note=text)

    page = browser.open(f"/points?client_name={text[:5]}").text

    assert text not in page
    assert inline_code(page) == []
