"""Datasets and documents as their owners see them: add, list, change, remove.

`dataset_work` has what workers do to them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.database import take_turns
from app.core.datasets.formats import inspect
from app.core.domain.datasets import DatasetKind, DatasetStatus, Inspected
from app.core.domain.errors import Conflict, InvalidInput, NotFound
from app.core.ids import new_uid
from app.core.models import Account, Dataset, UnwantedFile
from app.core.storage import StoredFile

__all__ = [
    "KIND", "MAX_DESCRIPTION", "MAX_NAME", "DatasetKind", "DatasetRow", "DatasetStatus",
    "Inspected", "NewDataset", "Order", "add", "change", "check_new", "count", "count_searchable", "find", "inspect", "page",
    "remove", "remove_all", "storage_used",
]  # fmt: skip

KIND = "datasets"
MAX_NAME = 255
MAX_DESCRIPTION = 1000
# The edges hand rows on and import no tables.
DatasetRow = Dataset
Order = Literal["newest", "oldest", "name", "name_reversed", "largest", "smallest"]

_ORDERS: dict[str, tuple[sa.UnaryExpression[Any], ...]] = {
    "newest": (Dataset.created_at.desc(), Dataset.id.desc()),
    "oldest": (Dataset.created_at.asc(), Dataset.id.asc()),
    "name": (sa.func.lower(Dataset.name).asc(), Dataset.id.asc()),
    "name_reversed": (sa.func.lower(Dataset.name).desc(), Dataset.id.desc()),
    "largest": (Dataset.size_bytes.desc(), Dataset.id.desc()),
    "smallest": (Dataset.size_bytes.asc(), Dataset.id.asc()),
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}")


@dataclass(frozen=True, slots=True)
class NewDataset:
    """A stored file that becomes a dataset.

    `suffix_when_taken`: a taken name is no conflict; `sales.csv` becomes `sales (2).csv`.
    """

    name: str
    description: str
    original_name: str
    stored: StoredFile
    inspected: Inspected
    suffix_when_taken: bool


def check_new(
    session: Session, account_id: int, *, name: str, description: str, suffix_when_taken: bool
) -> None:
    """Raise what `add` would raise, before a large file is sent for nothing."""
    checked = _checked_name(name)
    _checked_description(description)
    if not suffix_when_taken and _is_taken(session, account_id, checked):
        raise _taken(checked)


def add(session: Session, account_id: int, new: NewDataset, *, now: datetime) -> Dataset:
    """Make a stored file a dataset. The caller commits, then rings for its index.

    Raises InvalidInput (with the field) and Conflict (field `name`); NotFound when the account
    was closed while the file came in.
    """
    take_turns(session, _subject(account_id))
    if not session.scalar(sa.select(Account.is_active).where(Account.id == account_id)):
        raise NotFound("This account is closed.")
    name = _checked_name(new.name)
    if _is_taken(session, account_id, name):
        if not new.suffix_when_taken:
            raise _taken(name)
        name = _free_name(session, account_id, name)
    told = new.inspected
    dataset = Dataset(
        uid=new_uid(), account_id=account_id, name=name,
        description=_checked_description(new.description),
        original_name=_shown(new.original_name)[:MAX_NAME] or name,
        format=told.format, kind=told.kind, status=DatasetStatus.PROCESSING,
        size_bytes=new.stored.size_bytes, checksum=new.stored.sha256, file_name=new.stored.name,
        headers=list(told.headers) if told.headers is not None else None,
        preview_rows=[list(row) for row in told.preview_rows]
        if told.preview_rows is not None else None,
        row_count=told.row_count,
        column_count=len(told.headers) if told.headers is not None else None,
        used_in_research=True, attempt=0, rung_at=now, created_at=now, updated_at=now,
    )  # fmt: skip
    session.add(dataset)
    session.flush()
    return dataset


def find(session: Session, account_id: int, uid: str) -> Dataset:
    """An account's dataset. Raises NotFound, also for somebody else's."""
    found = session.scalar(
        sa.select(Dataset).where(Dataset.uid == uid, Dataset.account_id == account_id)
    )
    if found is None:
        raise NotFound("There is no such dataset.")
    return found


def page(
    session: Session,
    account_id: int,
    *,
    limit: int,
    offset: int,
    order: Order = "newest",
    status: str | None = None,
    format: str | None = None,
    keyword: str | None = None,
    kind: str | None = None,
) -> tuple[list[Dataset], int]:
    """Some of an account's datasets, and how many all of them are. What is given must all hold."""
    wanted = [Dataset.account_id == account_id]
    for column, value in (
        (Dataset.status, status),
        (Dataset.format, format),
        (Dataset.kind, kind),
    ):
        if value is not None:
            wanted.append(column == value)
    if keyword:
        text = keyword.lower()
        wanted.append(
            sa.func.lower(Dataset.name).contains(text, autoescape=True)
            | sa.func.lower(Dataset.description).contains(text, autoescape=True)
        )
    total = session.scalar(sa.select(sa.func.count()).select_from(Dataset).where(*wanted)) or 0
    rows = session.scalars(
        sa.select(Dataset).where(*wanted).order_by(*_ORDERS[order]).limit(limit).offset(offset)
    )
    return list(rows), total


def change(
    session: Session,
    account_id: int,
    uid: str,
    *,
    name: str | None = None,
    description: str | None = None,
    used_in_research: bool | None = None,
    now: datetime,
) -> Dataset:
    """Change what is given. Raises NotFound, InvalidInput, Conflict (field `name`)."""
    take_turns(session, _subject(account_id))
    dataset = find(session, account_id, uid)
    if name is not None and (checked := _checked_name(name)) != dataset.name:
        if _is_taken(session, account_id, checked):
            raise _taken(checked)
        dataset.name = checked
    if description is not None:
        dataset.description = _checked_description(description)
    if used_in_research is not None:
        dataset.used_in_research = used_in_research
    dataset.updated_at = now
    session.flush()
    return dataset


def remove(session: Session, account_id: int, uid: str, *, now: datetime) -> list[str]:
    """Forget a dataset; its files, for the caller to delete after the commit. Raises NotFound.

    Whoever is just making its index notices, and leaves nothing behind.
    """
    return _forget(session, [find(session, account_id, uid)], now)


def remove_all(session: Session, account_id: int, *, now: datetime) -> list[str]:
    """Forget all datasets of an account; their files, to delete after the commit."""
    rows = session.scalars(sa.select(Dataset).where(Dataset.account_id == account_id))
    return _forget(session, rows.all(), now)


def storage_used(session: Session, account_id: int) -> int:
    """Bytes of all datasets of an account, without their indexes."""
    total = sa.select(sa.func.coalesce(sa.func.sum(Dataset.size_bytes), 0))
    return int(session.scalar(total.where(Dataset.account_id == account_id)) or 0)


def count(session: Session, account_id: int) -> int:
    """How many datasets an account has."""
    total = sa.select(sa.func.count()).select_from(Dataset)
    return session.scalar(total.where(Dataset.account_id == account_id)) or 0


def count_searchable(session: Session, account_id: int) -> int:
    """How many of an account's datasets its research reads."""
    total = sa.select(sa.func.count()).select_from(Dataset)
    wanted = (
        Dataset.account_id == account_id,
        Dataset.status == DatasetStatus.READY,
        Dataset.used_in_research,
    )
    return session.scalar(total.where(*wanted)) or 0


def _forget(session: Session, rows: Iterable[Dataset], now: datetime) -> list[str]:
    files: list[str] = []
    for row in rows:
        # As it is now: an index may have been begun since the row was read.
        gone = session.execute(
            sa.delete(Dataset)
            .where(Dataset.id == row.id)
            .returning(Dataset.file_name, Dataset.index_file)
            .execution_options(synchronize_session=False)
        ).one_or_none()
        session.expunge(row)
        files += [name for name in gone or () if name]
    session.add_all(UnwantedFile(name=name, unwanted_at=now) for name in files)
    session.flush()
    return files


def _subject(account_id: int) -> str:
    return f"datasets of {account_id}"


def _is_taken(session: Session, account_id: int, name: str) -> bool:
    same = sa.exists().where(Dataset.account_id == account_id, Dataset.name == name)
    return bool(session.scalar(sa.select(same)))


def _taken(name: str) -> Conflict:
    return Conflict(f"You have a dataset named “{name}” already.", field="name")


def _free_name(session: Session, account_id: int, name: str) -> str:
    """`sales (2).csv`, or the first number that is free."""
    ending = _SUFFIX.search(name, name.rfind(".")) if "." in name[1:] else None
    end = ending[0] if ending and ending.end() == len(name) else ""
    stem = name[: len(name) - len(end)]
    number = 2
    while True:
        mark = f" ({number}){end}"
        candidate = stem[: MAX_NAME - len(mark)] + mark
        if not _is_taken(session, account_id, candidate):
            return candidate
        number += 1


def _shown(text: str) -> str:
    return _CONTROL.sub(" ", text).strip()


def _checked_name(name: str) -> str:
    shown = _shown(name)
    if not shown:
        raise InvalidInput("Give it a name.", field="name")
    if len(shown) > MAX_NAME:
        raise InvalidInput(f"A name has at most {MAX_NAME} characters.", field="name")
    return shown


def _checked_description(text: str) -> str:
    kept = text.replace("\0", "").strip()
    if len(kept) > MAX_DESCRIPTION:
        raise InvalidInput(
            f"A description has at most {MAX_DESCRIPTION} characters.", field="description"
        )
    return kept
