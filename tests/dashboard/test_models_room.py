"""The model catalogue: who may change it, where models are, sending one to a node."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session, sessionmaker

from app.core.models import AuditEntry, CatalogModel, Node, NodeAssignment
from app.core.services import desired
from tests.dashboard import provider_rows
from tests.dashboard.conftest import HOSTILE, Browser, Rows
from tests.dashboard.test_every_page import inline_code
from tests.dashboard.test_rooms import visible
from tests.fixtures.accounts import Person

SignedIn = Callable[[Person], Browser]
FIELDS = {
    "name": "qwen3-8b", "version": "2.0", "version_code": "2", "engine_type": "6",
    "min_gpu_memory_gb": "8", "min_memory_mb": "", "checksum": "b" * 64,
    "download_url": "https://example.org/qwen.gguf", "expected_size": "5000000000",
}  # fmt: skip


@pytest.fixture
def manager(signed_in: SignedIn, admin: Person) -> Browser:
    """The admin's browser."""
    return signed_in(admin)


@pytest.fixture
def store(app: Flask) -> redis.Redis:
    """The hub's Redis."""
    found: redis.Redis = app.extensions["weft_redis"]
    return found


def find(sessions: sessionmaker[Session], name: str) -> CatalogModel | None:
    with sessions() as session:
        return session.scalar(sa.select(CatalogModel).where(CatalogModel.name == name))


def test_an_admin_adds_and_changes_a_model(
    manager: Browser, sessions: sessionmaker[Session]
) -> None:
    assert manager.send("/models", **FIELDS).location == "/models"
    assert "qwen3-8b" in manager.open("/models").text
    row = find(sessions, "qwen3-8b")
    assert row
    assert (row.min_gpu_memory_gb, row.min_memory_mb) == (8, None)
    assert (
        'value="https://example.org/qwen.gguf"' in manager.open(f"/models/{row.id}/edit").text
    )

    manager.send("/models", **{**FIELDS, "min_gpu_memory_gb": "12"})

    changed = find(sessions, "qwen3-8b")
    assert changed
    assert (changed.id, changed.min_gpu_memory_gb) == (row.id, 12)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""), ("name", "x" * 101), ("version", ""), ("version_code", "two"),
        ("version_code", "99999999999"), ("engine_type", "9"), ("min_gpu_memory_gb", "-1"),
        ("download_url", "ftp://example.org/x"), ("download_url", "http://169.254.169.254/x"),
        ("download_url", "http://10.0.0.1/x"), ("checksum", ""), ("checksum", "zz"),
        ("expected_size", "1e9"),
    ],
)  # fmt: skip
def test_a_model_that_makes_no_sense_is_refused_at_its_field(
    manager: Browser, sessions: sessionmaker[Session], field: str, value: str
) -> None:
    answer = manager.send("/models", **{**FIELDS, field: value})

    assert answer.status_code == 400
    assert f'id="{field}-error"' in answer.text
    assert find(sessions, "qwen3-8b") is None


def test_a_taken_version_code_is_a_conflict(manager: Browser) -> None:
    manager.send("/models", **FIELDS)

    answer = manager.send("/models", **{**FIELDS, "version": "3.0"})

    assert answer.status_code == 409
    assert "has the version code 2" in answer.text


def test_only_admins_change_the_catalogue(
    browser: Browser, rows: Rows, sessions: sessionmaker[Session]
) -> None:
    model = provider_rows.add_model(rows)

    assert browser.open("/models").status_code == 200
    for path in ("/models/new", f"/models/{model.id}/edit"):
        assert browser.open(path).status_code == 404
    assert browser.send("/models", **FIELDS).status_code == 404
    assert browser.send(f"/models/{model.id}/active", active="0").status_code == 404
    assert find(sessions, "qwen3-8b") is None
    assert "Deactivate" not in browser.open("/models").text


def test_an_inactive_model_is_seen_by_admins_alone_and_not_sent(
    manager: Browser, browser: Browser, rows: Rows, owner: Person
) -> None:
    model, node = provider_rows.add_model(rows), rows.node(owner)
    assert "smollm2" in browser.open("/models").text

    manager.send(f"/models/{model.id}/active", active="0")

    assert "smollm2" not in browser.open("/models").text
    assert "Not active" in manager.open("/models").text
    sent = manager.send(f"/models/{model.id}/send", client_id=node.client_id)
    assert sent.status_code == 409
    manager.send(f"/models/{model.id}/active", active="1")
    assert "smollm2" in browser.open("/models").text


def test_a_sent_model_is_what_the_agent_is_told_to_fetch_and_serve(
    browser: Browser, rows: Rows, owner: Person, sessions: sessionmaker[Session]
) -> None:
    model, node = provider_rows.add_model(rows), rows.node(owner)
    assert "atelier (owner, online)" in browser.open(f"/models/{model.id}/send").text

    answer = browser.send(f"/models/{model.id}/send", client_id=node.client_id)

    assert answer.location == "/models"
    with sessions() as session:
        told = desired.desired_state(session, session.get_one(Node, node.id))
        trail = session.scalars(sa.select(AuditEntry.action)).all()
    assert told.revision == 1
    assert [(one.model_name, one.checksum) for one in told.downloads] == [("smollm2", "a" * 64)]
    assert [(one.model_name, one.engine) for one in told.models] == [("smollm2", "llamacpp")]
    assert trail == ["model.send"]


def test_a_model_is_taken_back(
    browser: Browser, rows: Rows, owner: Person, sessions: sessionmaker[Session]
) -> None:
    model, node = provider_rows.add_model(rows), rows.node(owner)
    provider_rows.assign(rows, node, model)

    browser.send("/models/recall", client_id=node.client_id, model_name="smollm2")

    with sessions() as session:
        assert session.scalars(sa.select(NodeAssignment)).all() == []


def test_nobody_sends_to_or_takes_from_another_accounts_node(
    signed_in: SignedIn, rows: Rows, owner: Person, outsider: Person,
    sessions: sessionmaker[Session],
) -> None:  # fmt: skip
    model, node = provider_rows.add_model(rows), rows.node(owner)
    provider_rows.assign(rows, node, model)
    stranger = signed_in(outsider)

    for path in (f"/models/{model.id}/send", "/models/recall"):
        answer = stranger.send(path, client_id=node.client_id, model_name="smollm2")
        assert answer.status_code == 404, path
    assert "atelier" not in stranger.open(f"/models/{model.id}/send").text
    assert "atelier" not in stranger.open("/models").text
    with sessions() as session:
        assert len(session.scalars(sa.select(NodeAssignment)).all()) == 1


def test_downloads_are_shown_with_bar_speed_and_time_left(
    browser: Browser, manager: Browser, rows: Rows, owner: Person, store: redis.Redis
) -> None:
    model, node = provider_rows.add_model(rows), rows.node(owner)
    provider_rows.assign(rows, node, model, reason="auto")
    provider_rows.report_download(store, node, "smollm2")

    for viewer in (browser, manager):
        part = viewer.part("/models").text
        assert 'max="100" value="50"' in part
        assert "47.7 MiB of 95.4 MiB · 977 KiB/s · 50 s left" in visible(part)
        assert "chosen by the hub" in part


def test_a_node_that_serves_a_catalogue_model_by_itself_is_listed(
    browser: Browser, rows: Rows, owner: Person
) -> None:
    provider_rows.add_model(rows)
    rows.replica(rows.node(owner, "atelier"), "smollm2")

    words = visible(browser.part("/models").text)

    assert "atelier ready" in words
    assert "Take back" not in words


@pytest.mark.parametrize("version_id", ["0", "999999", "x", "1e3", "²", "9" * 30])
def test_a_version_that_is_not_there_is_not_found(manager: Browser, version_id: str) -> None:
    assert manager.open(f"/models/{version_id}/send").status_code == 404
    assert manager.open(f"/models/{version_id}/edit").status_code == 404
    assert manager.send(f"/models/{version_id}/active").status_code == 404


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_text_in_the_catalogue(
    manager: Browser, rows: Rows, owner: Person, store: redis.Redis, text: str
) -> None:
    model = provider_rows.add_model(rows, text, version=text[:50])
    node = rows.node(owner, text[:64])
    provider_rows.assign(rows, node, model)
    provider_rows.report_download(store, node, text, status="Failed", error=text)

    for path in ("/models", f"/models/{model.id}/send", f"/models/{model.id}/edit"):
        page = manager.open(path).text
        assert text not in page, path
        assert inline_code(page) == [], path
