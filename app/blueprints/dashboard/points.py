"""Points: what one's devices earned, by day and device, and what was granted for it."""

from __future__ import annotations

from datetime import date
from typing import Any

from flask import request, url_for
from flask.typing import ResponseReturnValue

from app.blueprints.dashboard.pages import blueprint, page_or_part
from app.blueprints.dashboard.presenters import Shown
from app.core.clock import utc_now
from app.core.domain.errors import InvalidInput
from app.core.ids import parse_client_id
from app.core.services import accounts, points, points_chart
from app.core.services.points import E4, DevicePoints, PointsFilter
from app.web.auth import current_identity
from app.web.charts import Series
from app.web.csv_export import csv_response
from app.web.transaction import reading

PAGE_SIZE = 25
MAX_PAGE = 10_000
_FIELDS = ("client_name", "client_id", "device_id", "start", "end")
_CSV = ("date", "client_id", "client_name", "device_index", "device_name", "device_id",
        "heartbeats", "base_hours", "points")  # fmt: skip


@blueprint.get("/points")
def show_points() -> ResponseReturnValue:
    """Chart, table and ledger of one's own points."""
    form = {name: request.args.get(name, "").strip() for name in _FIELDS}
    errors: dict[str, str] = {}
    try:
        wanted = _filter(form)
    except InvalidInput as error:
        errors = {error.field or "": error.message}
        wanted = PointsFilter(account_id=current_identity().account_id)
    number = min(MAX_PAGE, max(1, request.args.get("page", 1, type=int)))
    session = reading()
    found = points.list_points(session, wanted, page=number, page_size=PAGE_SIZE)
    chart = points_chart.chart_points(session, wanted, now=utc_now())
    given: dict[str, Any] = {name: text for name, text in form.items() if text and not errors}
    figures = _account_figures()
    is_new = not (found.count or figures["grants"] or given or errors or figures["is_held"])
    return page_or_part(
        "points", "_points_table", status=400 if errors else 200, form=form, errors=errors,
        is_filtered=bool(given), csv=url_for("dashboard.export_points", **given),
        rows=[_row(one) for one in found.rows], total=f"{found.total_e4 / E4:,.4f}",
        page=_page(number, found.count, given), chart=_chart(chart), is_new=is_new, **figures,
    )  # fmt: skip


@blueprint.get("/points.csv")
def export_points() -> ResponseReturnValue:
    """The same rows as a file."""
    wanted = _filter({name: request.args.get(name, "").strip() for name in _FIELDS})
    rows = points_chart.export_points(reading(), wanted)
    return csv_response("weft-points.csv", _CSV, (_csv_row(one) for one in rows))


def _filter(form: dict[str, str]) -> PointsFilter:
    device = form["device_id"]
    client_id = parse_client_id(form["client_id"]) if form["client_id"] else None
    if form["client_id"] and client_id is None:
        raise InvalidInput("A client id has 32 hex digits.", field="client_id")
    try:
        device_id = int(device, 0) if device else None
    except ValueError:
        device_id = -1
    if device_id is not None and not 0 <= device_id <= 0xFFFFFFFF:
        raise InvalidInput("A PCI device id is a number such as 0x2684.", field="device_id")
    return PointsFilter(
        account_id=current_identity().account_id,
        client_id=client_id,
        client_name=form["client_name"] or None,
        device_id=device_id,
        start=_day(form, "start"),
        end=_day(form, "end"),
    )


def _day(form: dict[str, str], field: str) -> date | None:
    try:
        return date.fromisoformat(form[field]) if form[field] else None
    except ValueError:
        raise InvalidInput("Write the day as 2026-01-31.", field=field) from None


def _account_figures() -> dict[str, Any]:
    account_id = current_identity().account_id
    account = accounts.get_account(reading(), account_id)
    balance = points.balance(reading(), account_id)
    return {
        "earned": f"{balance.earned_e4 / E4:,.2f}",
        "granted": f"{balance.granted_e4 / E4:,.2f}",
        "held": f"{balance.held_e4 / E4:,.2f}",
        "approval": _approval(
            is_provider=account.provider_registration_date is not None,
            is_approved=account.is_gpu_provider_approved,
        ),
        "is_held": account.provider_registration_date is not None
        and not account.is_gpu_provider_approved,
        "grants": [
            {
                "day": grant.day, "at": grant.created_at, "note": grant.note or grant.reason,
                "amount": f"{grant.amount_e4 / E4:+,.4f}",
                "reason": "Earned" if grant.reason == "day" else "Adjustment",
            }
            for grant in points.list_grants(reading(), account_id)
        ],
    }  # fmt: skip


def _approval(*, is_provider: bool, is_approved: bool) -> Shown:
    if not is_provider:
        return Shown("Not a provider yet")
    return Shown("Approved", "ok") if is_approved else Shown("Waiting for approval", "warn")


def _row(one: DevicePoints) -> dict[str, Any]:
    return {
        "day": one.day,
        "node": one.client_name or one.client_id,
        "href": url_for("dashboard.show_node", client_id=one.client_id),
        "device": one.device_name or "Unknown device",
        "device_note": f"device {one.device_index}"
        + (f" · 0x{one.device_id:04x}" if one.device_id else ""),
        "heartbeats": one.heartbeats,
        "hours": one.heartbeats * 120 // 3600,
        "points": f"{one.points_e4 / E4:,.4f}",
    }


def _csv_row(one: DevicePoints) -> tuple[object, ...]:
    return (
        one.day.isoformat(), one.client_id, one.client_name, one.device_index, one.device_name,
        one.device_id, one.heartbeats, one.heartbeats * 120 // 3600, f"{one.points_e4 / E4:.4f}",
    )  # fmt: skip


def _chart(chart: points_chart.PointsChart) -> dict[str, Any]:
    return {
        "labels": [f"{day:%d %b}" for day in chart.days],
        "series": [Series(name, values) for name, values in chart.series],
    }


def _page(number: int, total: int, given: dict[str, Any]) -> dict[str, Any]:
    def link(page_number: int) -> str:
        return url_for("dashboard.show_points", page=page_number, **given)

    return {
        "number": number, "size": PAGE_SIZE, "total": total,
        "prev": link(number - 1) if number > 1 else None,
        "next": link(number + 1) if number * PAGE_SIZE < total else None,
    }  # fmt: skip
