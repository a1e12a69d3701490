"""Your data: upload, look, describe, choose what research may read, take along, delete."""

from __future__ import annotations

from typing import Any

from flask import Response, request, url_for
from flask.typing import ResponseReturnValue

from app.blueprints.dashboard.pages import blueprint, page, page_or_part, see_other
from app.blueprints.dashboard.presenters import Question, Shown, form_status
from app.core.clock import utc_now
from app.core.domain.errors import Conflict, DomainError, InvalidInput
from app.core.ids import uid_from_object_id
from app.core.services import datasets
from app.core.services.datasets import DatasetKind, DatasetRow, DatasetStatus
from app.web import datasets as doors
from app.web.auth import current_identity
from app.web.context import settings
from app.web.errors import BadRequestBody
from app.web.pages import wants_fragment
from app.web.transaction import reading, unit_of_work
from app.web.uploads import STREAMED
from app.web.validation import json_response

PAGE_SIZE = 20
MOST_SEARCH = 255
_FILTERS = {
    "": "All",
    DatasetKind.TABLE: "Tables",
    DatasetKind.DOCUMENT: "Documents",
    DatasetKind.ARCHIVE: "Archives",
}
_STATES = {
    DatasetStatus.PROCESSING: Shown("Being read", "busy", live=True),
    DatasetStatus.READY: Shown("Ready", "ok"),
    DatasetStatus.FAILED: Shown("Not searchable", "warn"),
}
_FORMAT_TEXTS = {
    "csv": "CSV", "json": "JSON", "jsonl": "JSON Lines", "parquet": "Parquet", "txt": "Text",
    "md": "Markdown", "html": "HTML", "pdf": "PDF", "zip": "Zip", "tar": "Tar", "gz": "Gzip",
}  # fmt: skip

STREAMED.add("dashboard.upload_data")


@blueprint.get("/data")
def show_data() -> ResponseReturnValue:
    """What the account has uploaded, and a place to upload more."""
    return _room()


@blueprint.post("/data")
def upload_data() -> ResponseReturnValue:
    """Take one file; a script gets JSON, a plain form the dataset's page."""
    is_script = request.accept_mimetypes.best == "application/json"
    try:
        row = doors.receive_dataset(suffix_when_taken=True)
    except BadRequestBody:
        if is_script:
            raise
        return _room(status=400, errors={"file": "Choose a file."})
    except DomainError as error:
        if is_script:
            raise
        return _room(status=form_status(error), errors={"file": error.message})
    if is_script:
        return json_response({"name": row.name, "href": _href(row)}, 201)
    return see_other("show_dataset", uid=row.uid)


def _room(*, status: int = 200, errors: dict[str, str] | None = None) -> Response:
    keyword = request.args.get("q", "").strip()[:MOST_SEARCH].replace("\0", "")
    kind = request.args.get("kind", "")
    kind = kind if kind in _FILTERS else ""
    number = min(max(request.args.get("page", 1, type=int), 1), 100_000)
    account_id = current_identity().account_id
    rows, total = datasets.page(
        reading(), account_id, limit=PAGE_SIZE, offset=(number - 1) * PAGE_SIZE,
        keyword=keyword or None, kind=kind or None,
    )  # fmt: skip
    values: dict[str, Any] = {
        "rows": [_row(row) for row in rows],
        "page": _page(number, total, keyword, kind),
        "keyword": keyword,
        "kind": kind,
        "filters": [
            (text, _link(1, keyword, name), name == kind, None)
            for name, text in _FILTERS.items()
        ],
        "max_bytes": settings().dataset_max_bytes,
        "bytes_used": datasets.storage_used(reading(), account_id),
        "is_filtered": bool(keyword or kind),
    }
    if status != 200:
        return page("data", status=status, errors=errors, **values)
    return page_or_part("data", "_data_list", **values)


def _link(number: int, keyword: str, kind: str) -> str:
    return url_for(
        "dashboard.show_data", q=keyword or None, kind=kind or None,
        page=number if number > 1 else None,
    )  # fmt: skip


def _page(number: int, total: int, keyword: str, kind: str) -> dict[str, Any]:
    pages = max(1, -(-total // PAGE_SIZE))
    return {
        "number": number, "size": PAGE_SIZE, "total": total, "pages": pages,
        "here": _link(number, keyword, kind),
        "prev": _link(number - 1, keyword, kind) if number > 1 else None,
        "next": _link(number + 1, keyword, kind) if number < pages else None,
    }  # fmt: skip


def _href(row: DatasetRow) -> str:
    return url_for("dashboard.show_dataset", uid=row.uid)


def _row(row: DatasetRow) -> dict[str, Any]:
    return {
        "href": _href(row),
        "name": row.name,
        "description": " ".join(row.description.split())[:160],
        "format": _FORMAT_TEXTS.get(row.format, row.format),
        "size": row.size_bytes,
        "rows": row.row_count,
        "state": _state(row),
        "is_left_out": not row.used_in_research,
        "created_at": row.created_at,
    }


def _state(row: DatasetRow) -> Shown:
    return _STATES.get(DatasetStatus(row.status), Shown(row.status))


@blueprint.get("/data/<uid>")
def show_dataset(uid: str) -> ResponseReturnValue:
    """One dataset: its facts, its beginning, what to do with it."""
    return page_or_part("dataset", "_dataset", **_dataset(_find(uid)))


def _dataset(row: DatasetRow) -> dict[str, Any]:
    is_table = row.kind == DatasetKind.TABLE
    return {
        "uid": row.uid,
        "name": row.name,
        "description": row.description,
        "state": _state(row),
        "is_processing": row.status == DatasetStatus.PROCESSING,
        "is_failed": row.status == DatasetStatus.FAILED,
        "message": row.status_message,
        "is_used": row.used_in_research,
        "is_table": is_table,
        "is_archive": row.kind == DatasetKind.ARCHIVE,
        "headers": row.headers or [],
        "preview_rows": row.preview_rows or [],
        "row_count": row.row_count,
        "beginning": None if is_table else doors.beginning_of(row),
        "facts": _facts(row),
        "size": row.size_bytes,
        "checksum": row.checksum,
        "created_at": row.created_at,
    }


def _facts(row: DatasetRow) -> list[tuple[str, Any]]:
    facts: list[tuple[str, Any]] = [("Format", _FORMAT_TEXTS.get(row.format, row.format))]
    if row.kind == DatasetKind.TABLE:
        rows = f"{row.row_count:,}" if row.row_count is not None else None
        facts += [("Rows", rows), ("Columns", row.column_count)]
    if row.original_name != row.name:
        facts.append(("File", row.original_name))
    if row.passage_count is not None:
        facts.append(("Passages", f"{row.passage_count:,}"))
    return facts


@blueprint.post("/data/<uid>")
def change_dataset(uid: str) -> ResponseReturnValue:
    """Rename or describe."""
    row = _find(uid)
    form = {name: request.form.get(name, "") for name in ("name", "description")}
    try:
        with unit_of_work() as session:
            datasets.change(
                session, current_identity().account_id, row.uid, name=form["name"],
                description=form["description"], now=utc_now(),
            )  # fmt: skip
    except (InvalidInput, Conflict) as error:
        errors = {error.field or "name": error.message}
        shown = _dataset(_find(uid))
        return page("dataset", status=form_status(error), form=form, errors=errors, **shown)
    return see_other("show_dataset", uid=row.uid)


@blueprint.post("/data/<uid>/research")
def use_dataset(uid: str) -> ResponseReturnValue:
    """Whether research may read it."""
    row = _find(uid)
    with unit_of_work() as session:
        datasets.change(
            session, current_identity().account_id, row.uid,
            used_in_research=request.form.get("used") == "1", now=utc_now(),
        )  # fmt: skip
    return Response(status=204) if wants_fragment() else see_other("show_dataset", uid=row.uid)


@blueprint.get("/data/<uid>/file")
def download_data(uid: str) -> ResponseReturnValue:
    """The file as it was uploaded."""
    return doors.send_dataset(_find(uid))


@blueprint.get("/data/<uid>/delete")
def confirm_delete_data(uid: str) -> ResponseReturnValue:
    """Ask before a file is gone."""
    row = _find(uid)
    question = Question(
        title=f"Delete “{row.name}”?",
        text="The file and what research knows of it go. Reports that quote it stay."
        " This can't be undone.",
        action=url_for("dashboard.delete_data", uid=row.uid),
        label="Delete it",
        cancel=_href(row),
    )
    return page("confirm", question=question, is_fragment=wants_fragment())


@blueprint.post("/data/<uid>/delete")
def delete_data(uid: str) -> ResponseReturnValue:
    """Forget a dataset and its file."""
    doors.delete_dataset(_find(uid).uid)
    return see_other("show_data")


def _find(uid: str) -> DatasetRow:
    return doors.find_dataset(uid_from_object_id(uid))
