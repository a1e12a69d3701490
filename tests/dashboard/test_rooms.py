"""Overview, runs, nodes and the playground's page: what they say of the rows there are."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.models import UsageHour
from tests.dashboard.conftest import Browser, Rows, seconds_after
from tests.fixtures.accounts import Person


def visible(html: str) -> str:
    """A page's words."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_the_overview_counts_what_is_there(
    browser: Browser, rows: Rows, owner: Person, other: Person, sessions: sessionmaker[Session]
) -> None:
    rows.replica(rows.node(other))
    rows.node(other, "away", last_beat_at=utc_now() - timedelta(hours=1))
    rows.run(owner, state="running")
    rows.run(other, state="queued")
    hour = utc_now().replace(minute=0, second=0, microsecond=0)
    with sessions.begin() as session:
        session.add(
            UsageHour(
                account_id=owner.id,
                hour=hour,
                runs=7,
                failed=2,
                input_tokens=1000,
                output_tokens=2500,
            )
        )

    words = visible(browser.part("/").text)

    assert "Nodes online 1 of 2 on the network" in words
    assert "Runs now 1 2 on the whole network" in words
    assert "3.5k" in words
    assert "1k in, 2.5k out" in words
    assert "2 failed" in words
    assert "smollm2 1 replica" in words


def test_a_new_account_is_shown_where_to_start(
    browser: Browser, rows: Rows, owner: Person
) -> None:
    assert "Get started" in browser.open("/").text

    rows.run(owner)

    assert "Get started" not in browser.open("/").text


def test_runs_are_listed_newest_first_and_by_state(
    browser: Browser, rows: Rows, owner: Person
) -> None:
    rows.run(owner, prompt="first question")
    rows.run(owner, prompt="second question", state="failed")

    everything = browser.open("/runs").text
    assert everything.index("second question") < everything.index("first question")
    failed = browser.open("/runs?state=failed").text
    assert "second question" in failed
    assert "first question" not in failed
    assert browser.open("/runs?state=nonsense&before=x").status_code == 200


def test_long_lists_of_runs_have_pages(browser: Browser, rows: Rows, owner: Person) -> None:
    for number in range(27):
        rows.run(owner, prompt=f"question-{number:02}")
    first = browser.open("/runs").text
    older = re.search(r'rel="next" href="([^"]+)"', first)
    assert older
    second = browser.open(older[1].replace("&amp;", "&")).text

    assert len(re.findall(r"question-\d\d", first)) == 25
    assert re.findall(r"question-\d\d", second) == ["question-01", "question-00"]


def test_a_runs_page_tells_what_happened(browser: Browser, rows: Rows, owner: Person) -> None:
    asked = utc_now() - timedelta(minutes=1)
    run = rows.run(
        owner, prompt="Why?", created_at=asked, started_at=seconds_after(asked, 0.05),
        first_chunk_at=seconds_after(asked, 0.24), finished_at=seconds_after(asked, 2.24),
        node_id=rows.node(owner, "atelier").id, attempt=2, tried_replicas=[9], finish_reason="length",
        answer_text="Because.", input_tokens=12, output_tokens=101,
    )  # fmt: skip
    words = visible(browser.open(f"/runs/{run.uid}").text)

    assert "Why?" in words
    assert "Because." in words
    assert "Node atelier" in words
    assert "Attempts 2" in words
    assert "First token after 240 ms" in words
    assert "Tokens a second 50.0" in words
    assert "Duration 2.24 s" in words
    assert "Started on atelier, after 1 that failed" in words
    assert "Succeeded at the most tokens" in words


def test_a_live_run_streams_and_can_be_stopped(
    browser: Browser, rows: Rows, owner: Person
) -> None:
    run = rows.run(owner, state="queued")
    live = browser.open(f"/runs/{run.uid}").text

    assert f'data-events="/runs/{run.uid}/events"' in live
    assert "<html" not in browser.part(f"/runs/{run.uid}?part=side").text

    assert browser.send(f"/runs/{run.uid}/cancel").location == f"/runs/{run.uid}"
    stopped = browser.open(f"/runs/{run.uid}").text
    assert "Stopped" in visible(stopped)
    assert "data-events" not in stopped


def test_somebody_elses_run_is_not_there(
    rows: Rows, owner: Person, outsider: Person, signed_in: Callable[[Person], Browser]
) -> None:
    run = rows.run(owner)
    stranger = signed_in(outsider)

    assert stranger.open(f"/runs/{run.uid}").status_code == 404
    assert stranger.open(f"/runs/{run.uid}/events").status_code == 404
    assert stranger.send(f"/runs/{run.uid}/cancel").status_code == 404
    assert stranger.open("/runs/nonsense").status_code == 404
    assert "sky" not in stranger.open("/runs").text


def test_nodes_are_shown_with_devices_models_and_load(
    browser: Browser, rows: Rows, owner: Person
) -> None:
    node = rows.node(owner, "atelier")
    rows.device(node)
    rows.replica(node, "smollm2")
    rows.replica(node, "qwen", state="starting")
    rows.run(owner, state="running", node_id=node.id)
    rows.node(owner, "cellar", last_beat_at=utc_now() - timedelta(hours=2))
    rows.node(owner, "kitchen", wanted_status="maintenance")

    words = visible(browser.open("/nodes").text)

    assert "atelier Linux · agent 1.0 · owner Online RTX 4090 · 24 GiB" in words
    assert "smollm2" in words
    assert "qwen (starting)" in words
    assert re.search(r"cellar .{0,40}Offline", words)
    assert re.search(r"kitchen .{0,40}Maintenance", words)


def test_only_an_admin_sees_everybodys_nodes(
    rows: Rows,
    owner: Person,
    outsider: Person,
    admin: Person,
    signed_in: Callable[[Person], Browser],
) -> None:
    rows.node(owner, "atelier")

    assert "atelier" not in signed_in(outsider).open("/nodes").text
    assert "atelier" in signed_in(admin).open("/nodes").text
    assert "atelier" not in signed_in(admin).open("/nodes?whose=mine").text


def test_the_playground_offers_what_can_be_asked_now(
    browser: Browser, rows: Rows, owner: Person
) -> None:
    assert "No model is online" in browser.open("/playground").text

    rows.replica(rows.node(owner), "smollm2")
    rows.replica(rows.node(owner, "b"), "loading", state="starting")
    page = browser.open("/playground?model=smollm2").text

    assert '<option value="smollm2" selected>' in page
    assert "loading" not in re.findall(r"<option[^>]*>([^<]+)", page)
