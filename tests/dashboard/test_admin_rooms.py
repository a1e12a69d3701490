"""The admin's rooms: closed to others; approving, marking, the device table, the trail."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.models import Account, AuditEntry, DeviceType, Node, PointGrant
from app.core.services import device_types
from tests.dashboard import provider_rows
from tests.dashboard.conftest import HOSTILE, Browser, Rows
from tests.dashboard.test_every_page import inline_code
from tests.dashboard.test_rooms import visible
from tests.fixtures.accounts import MakePerson, Person

SignedIn = Callable[[Person], Browser]
ROOMS = ("/admin", "/admin/accounts", "/admin/nodes", "/admin/devices", "/admin/trail")
DEVICE = {
    "vendor": "NVIDIA", "name": "GeForce RTX 9090", "vendor_id": "10de", "device_id": "9090",
    "tflops": "165.2", "source": "Data sheet of 2026",
}  # fmt: skip


@pytest.fixture
def manager(signed_in: SignedIn, admin: Person) -> Browser:
    """The admin's browser."""
    return signed_in(admin)


def make_provider(sessions: sessionmaker[Session], person: Person) -> None:
    with sessions.begin() as session:
        session.get_one(Account, person.id).provider_registration_date = utc_now()


@pytest.mark.parametrize("path", ROOMS)
def test_the_rooms_are_there_for_admins_alone(
    manager: Browser, browser: Browser, path: str
) -> None:
    assert manager.open(path).status_code == 200
    assert browser.open(path).status_code == 404


def test_others_change_nothing(
    browser: Browser, rows: Rows, owner: Person, sessions: sessionmaker[Session]
) -> None:
    node = rows.node(owner)
    make_provider(sessions, owner)

    for path, fields in (
        (f"/admin/accounts/{owner.id}/approve", {}),
        (f"/admin/nodes/{node.client_id}", {"valid_status": "invalid"}),
        ("/admin/devices", DEVICE),
    ):
        assert browser.send(path, **fields).status_code == 404, path
    with sessions() as session:
        assert not session.get_one(Account, owner.id).is_gpu_provider_approved
        assert session.get_one(Node, node.id).valid_status == "valid"
        assert session.scalars(sa.select(DeviceType)).all() == []
    assert "Administration" not in browser.open("/").text


def test_approving_a_provider_grants_what_was_held(
    manager: Browser, rows: Rows, owner: Person, sessions: sessionmaker[Session]
) -> None:
    make_provider(sessions, owner)
    provider_rows.add_points(rows, rows.node(owner), days=3)
    assert "owner" in visible(manager.open("/admin").text)

    assert manager.send(f"/admin/accounts/{owner.id}/approve").location == "/admin"
    manager.send(f"/admin/accounts/{owner.id}/approve")  # twice does no harm

    assert "Nobody waits" in manager.open("/admin").text
    with sessions() as session:
        assert session.get_one(Account, owner.id).is_gpu_provider_approved
        amounts = session.scalars(sa.select(PointGrant.amount_e4)).all()
    assert sorted(amounts) == [239_000, 248_000]  # the day that is not over follows later
    assert "provider.approve" in manager.open("/admin/trail").text


@pytest.mark.parametrize("account_id", ["0", "999999", "x", "²", "9" * 40])
def test_an_account_that_is_not_there_is_not_approved(
    manager: Browser, account_id: str
) -> None:
    assert manager.send(f"/admin/accounts/{account_id}/approve").status_code == 404


def test_a_node_is_marked_and_the_trail_tells_who_did_it(
    manager: Browser, rows: Rows, owner: Person, sessions: sessionmaker[Session]
) -> None:
    node = rows.node(owner, "atelier")
    path, page = f"/admin/nodes/{node.client_id}", f"/nodes/{node.client_id}"

    assert manager.send(path, valid_status="warning", next=page).location == page
    assert manager.send(path, valid_status="odd").status_code == 400
    away = manager.send(path, valid_status="warning", next="https://example.org/")
    assert away.location == "/"

    with sessions() as session:
        assert session.get_one(Node, node.id).valid_status == "warning"
        entry = session.scalars(sa.select(AuditEntry)).one()
    assert (entry.action, entry.detail) == ("node.valid_status", "warning")
    assert "atelier" in manager.open("/admin/nodes?valid=warning").text
    assert "atelier" not in manager.open("/admin/nodes?valid=invalid").text
    assert f"{node.client_id} warning admin" in visible(manager.open("/admin/trail").text)


def test_accounts_are_searched_and_paged(manager: Browser, make_person: MakePerson) -> None:
    for number in range(27):
        make_person(f"person{number:02}")

    assert "1–25 of 28 accounts" in manager.open("/admin/accounts").text
    assert "26–28 of 28" in manager.open("/admin/accounts?page=2").text
    found = manager.open("/admin/accounts?q=PERSON1").text
    assert "person15" in found
    assert "person25" not in found
    assert "No account fits" in manager.open("/admin/accounts?q=%25").text


def test_a_device_that_an_admin_adds_counts_from_now_on(
    manager: Browser, sessions: sessionmaker[Session]
) -> None:
    assert manager.send("/admin/devices", **DEVICE).location == "/admin/devices"

    with sessions() as session:
        table = device_types.load_table(session)
    assert table.rate(0x10DE, 0x9090, "").multiplier_e4 == 20_000
    words = visible(manager.open("/admin/devices?q=rtx 9090").text)
    assert "GeForce RTX 9090 NVIDIA 10de:9090 165.20 Data sheet of 2026" in words
    assert "GeForce RTX 9090: 165.2 TFLOPS" in visible(manager.open("/admin/trail").text)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vendor_id", "xyz"), ("vendor_id", "0"), ("device_id", "10000"), ("tflops", "fast"),
        ("tflops", "nan"), ("tflops", "-1"), ("tflops", "inf"), ("source", ""), ("name", " "),
        ("vendor", "x" * 65),
    ],
)  # fmt: skip
def test_a_device_without_sense_or_source_is_refused(
    manager: Browser, sessions: sessionmaker[Session], field: str, value: str
) -> None:
    answer = manager.send("/admin/devices", **{**DEVICE, field: value})

    assert answer.status_code == 400
    assert f'id="{field}-error"' in answer.text
    with sessions() as session:
        assert session.scalars(sa.select(DeviceType)).all() == []


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_text_in_the_admins_rooms(
    manager: Browser, rows: Rows, owner: Person, sessions: sessionmaker[Session], text: str
) -> None:
    make_provider(sessions, owner)
    with sessions.begin() as session:
        session.get_one(Account, owner.id).username = text
    node = rows.node(owner, text[:64])
    rows.device(node, text)
    manager.send("/admin/devices", **{**DEVICE, "name": text, "source": text, "vendor": text})
    rows.add(AuditEntry(at=utc_now(), action=text[:64], subject=text, detail=text))

    for path in (*ROOMS, f"/admin/accounts?q={text[:3]}", f"/admin/nodes?q={text[:3]}"):
        page = manager.open(path).text
        assert text not in page, path
        assert inline_code(page) == [], path
