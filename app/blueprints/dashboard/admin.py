"""The admin's rooms: providers that wait, accounts, nodes, kinds of device, the trail."""

from __future__ import annotations

from typing import Any

from flask import Response, request, url_for
from flask.typing import ResponseReturnValue

from app.blueprints.dashboard.node_presenters import VALID_STATUSES, node_state
from app.blueprints.dashboard.pages import blueprint, page, safe_next, see_other
from app.blueprints.dashboard.presenters import ROLE_TEXTS, Shown
from app.core.clock import utc_now
from app.core.domain.accounts import Identity
from app.core.domain.errors import InvalidInput, NotFound
from app.core.services import accounts, administration, nodes, points
from app.core.services.administration import PAGE_SIZE, AccountLine
from app.core.services.device_types import KnownType
from app.web.auth import current_identity
from app.web.context import settings
from app.web.transaction import reading, unit_of_work

MAX_PAGE = 100_000
_DEVICE_FORM = ("vendor_id", "device_id", "vendor", "name", "tflops", "source")


def _admin() -> Identity:
    """Who calls, when that is an admin. To others these rooms are not there."""
    identity = current_identity()
    if not identity.is_admin:
        raise NotFound("There is nothing here.")
    return identity


def _tabs(current: str) -> list[tuple[str, str, bool, int | None]]:
    _, waiting = administration.list_accounts(reading(), only_waiting=True, page_size=1)
    rooms = (
        ("Providers", "show_admin", waiting),
        ("Nodes", "show_admin_nodes", None),
        ("Accounts", "show_admin_accounts", None),
        ("Devices", "show_admin_devices", None),
        ("Trail", "show_admin_trail", None),
    )
    return [
        (text, url_for(f"dashboard.{endpoint}"), endpoint == current, count)
        for text, endpoint, count in rooms
    ]


@blueprint.get("/admin")
def show_admin() -> ResponseReturnValue:
    """Providers that wait for approval."""
    _admin()
    number = _page_number()
    found, total = administration.list_accounts(reading(), only_waiting=True, page=number)
    return page(
        "admin_providers", tabs_shown=_tabs("show_admin"),
        accounts=[_account(one) for one in found], page=_page("show_admin", number, total),
    )  # fmt: skip


@blueprint.post("/admin/accounts/<account_id>/approve")
def approve_provider(account_id: str) -> ResponseReturnValue:
    """Approve a provider; what its devices earned is granted."""
    identity = _admin()
    if not account_id.isascii() or not account_id.isdecimal() or len(account_id) > 9:
        raise NotFound("There is no such account.")
    with unit_of_work() as session:
        account = accounts.get_account(session, int(account_id))
        points.approve_provider(session, account, actor_id=identity.account_id, now=utc_now())
    return see_other("show_admin")


@blueprint.get("/admin/accounts")
def show_admin_accounts() -> ResponseReturnValue:
    """All accounts, by page and search."""
    _admin()
    number, search = _page_number(), request.args.get("q", "").strip()[:100]
    found, total = administration.list_accounts(reading(), search=search, page=number)
    return page(
        "admin_accounts", tabs_shown=_tabs("show_admin_accounts"), search=search,
        accounts=[_account(one) for one in found],
        page=_page("show_admin_accounts", number, total, q=search or None),
    )  # fmt: skip


@blueprint.get("/admin/nodes")
def show_admin_nodes() -> ResponseReturnValue:
    """Everybody's nodes, and how valid each is."""
    _admin()
    number, search = _page_number(), request.args.get("q", "").strip()[:100]
    valid = request.args.get("valid", "")
    wanted = nodes.NodeFilter(
        name=search or None, valid_status=valid if valid in dict(VALID_STATUSES) else None
    )
    found, total = nodes.list_nodes(
        reading(), wanted, now=utc_now(), page=number, page_size=PAGE_SIZE,
        offline_after_seconds=settings().offline_after_seconds,
    )  # fmt: skip
    return page(
        "admin_nodes", tabs_shown=_tabs("show_admin_nodes"), search=search, valid=valid,
        valid_statuses=VALID_STATUSES, nodes=[_node(one) for one in found],
        page=_page("show_admin_nodes", number, total, q=search or None, valid=valid or None),
    )  # fmt: skip


@blueprint.post("/admin/nodes/<client_id>")
def mark_node(client_id: str) -> ResponseReturnValue:
    """Say whether a node is valid."""
    identity = _admin()
    status = request.form.get("valid_status", "")
    if status not in dict(VALID_STATUSES):
        raise InvalidInput("A node is valid, invalid, or one to be warned of.")
    with unit_of_work() as session:
        node = nodes.get_node(session, identity, client_id)
        nodes.edit_node(session, identity, node, valid_status=status, now=utc_now())
    return _back("show_admin_nodes")


@blueprint.get("/admin/devices")
def show_admin_devices() -> ResponseReturnValue:
    """The table that points are counted by."""
    _admin()
    return _devices_page()


@blueprint.post("/admin/devices")
def add_device_type() -> ResponseReturnValue:
    """Add or change a kind of device, with the source of its figure."""
    identity = _admin()
    form = {name: request.form.get(name, "").strip() for name in _DEVICE_FORM}
    try:
        with unit_of_work() as session:
            administration.add_type(
                session, _type_of(form), actor_id=identity.account_id, now=utc_now()
            )
    except InvalidInput as error:
        if error.field is None:
            raise
        return _devices_page(form=form, errors={error.field: error.message}, status=400)
    return see_other("show_admin_devices")


def _devices_page(
    *, form: dict[str, str] | None = None, errors: dict[str, str] | None = None,
    status: int = 200,
) -> Response:  # fmt: skip
    search = request.args.get("q", "").strip()[:100]
    added, shipped = administration.list_types(reading(), search=search)
    return page(
        "admin_devices", status=status, tabs_shown=_tabs("show_admin_devices"), search=search,
        form=form or {}, errors=errors or {},
        groups=[
            ("Added here", [_type(one) for one in added]),
            ("Comes with Weft", [_type(one) for one in shipped]),
        ],
    )  # fmt: skip


@blueprint.get("/admin/trail")
def show_admin_trail() -> ResponseReturnValue:
    """Who did what."""
    _admin()
    number = _page_number()
    lines, total = administration.list_trail(reading(), page=number)
    return page(
        "admin_trail", tabs_shown=_tabs("show_admin_trail"), lines=lines,
        page=_page("show_admin_trail", number, total),
    )  # fmt: skip


def _type_of(form: dict[str, str]) -> KnownType:
    try:
        tflops = float(form["tflops"])
    except ValueError:
        raise InvalidInput("Give the FP32 speed in TFLOPS.", field="tflops") from None
    return KnownType(
        _pci(form, "vendor_id"), _pci(form, "device_id"), form["vendor"], form["name"], tflops,
        form["source"],
    )  # fmt: skip


def _pci(form: dict[str, str], field: str) -> int:
    try:
        return int(form[field], 16)
    except ValueError:
        raise InvalidInput("Write the PCI id as 4 hex digits.", field=field) from None


def _type(one: KnownType) -> dict[str, Any]:
    return {
        "name": one.name, "vendor": one.vendor, "tflops": one.tflops, "source": one.source,
        "ids": f"{one.vendor_id:04x}:{one.device_id:04x}" if one.device_id else "by name",
    }  # fmt: skip


def _account(one: AccountLine) -> dict[str, Any]:
    if not one.is_active:
        state = Shown("Closed", "bad")
    elif one.is_provider and not one.is_approved:
        state = Shown("Waits for approval", "warn")
    elif one.is_approved:
        state = Shown("Approved provider", "ok")
    else:
        state = Shown("Active")
    return {
        "id": one.id, "username": one.username, "email": one.email,
        "role": ROLE_TEXTS.get(one.role, one.role), "state": state, "nodes": one.nodes,
        "created_at": one.created_at, "can_approve": one.is_provider and not one.is_approved,
        "approve_href": url_for("dashboard.approve_provider", account_id=one.id),
    }  # fmt: skip


def _node(one: nodes.NodeView) -> dict[str, Any]:
    return {
        "name": one.name, "owner": one.owner, "state": node_state(one),
        "href": url_for("dashboard.show_node", client_id=one.client_id),
        "mark_href": url_for("dashboard.mark_node", client_id=one.client_id),
        "client_id": one.client_id, "valid_status": one.valid_status,
        "devices": ", ".join(device.name or "Unknown device" for device in one.devices),
        "last_beat_at": one.last_beat_at,
    }  # fmt: skip


def _back(endpoint: str) -> ResponseReturnValue:
    """To the page that the form named, if it is ours."""
    target = request.form.get("next")
    if target:
        return Response(status=303, headers={"Location": safe_next(target)})
    return see_other(endpoint)


def _page_number() -> int:
    return min(MAX_PAGE, max(1, request.args.get("page", 1, type=int)))


def _page(endpoint: str, number: int, total: int, **given: Any) -> dict[str, Any]:
    def link(page_number: int) -> str:
        return url_for(f"dashboard.{endpoint}", page=page_number, **given)

    return {
        "number": number, "size": PAGE_SIZE, "total": total,
        "prev": link(number - 1) if number > 1 else None,
        "next": link(number + 1) if number * PAGE_SIZE < total else None,
    }  # fmt: skip
