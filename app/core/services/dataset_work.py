"""Datasets as workers move them: claim, hold, end; and files that are to be deleted.

`dataset_id`, `worker` and `attempt` together name one claim: whoever lost it writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.datasets.building import Built
from app.core.domain.datasets import DatasetStatus
from app.core.models import Dataset, UnwantedFile
from app.core.storage import new_name

INDEX_KIND = "indexes"
MOST_ATTEMPTS = 3
BATCH = 50
MOST_SEARCHED = 100
RING_AGAIN_SECONDS = 60.0
RING_LOST_SECONDS = 2.0
# Longer than anybody writes on a file that nobody wants any more.
UNWANTED_SECONDS = 900.0
_LOST = "The workers that read this file were all lost."


@dataclass(frozen=True, slots=True)
class IndexClaim:
    """A dataset that this worker makes the index of."""

    dataset_id: int
    worker: str
    attempt: int
    file_name: str
    index_file: str
    format: str
    name: str


@dataclass(frozen=True, slots=True)
class Searchable:
    """A dataset with an index."""

    uid: str
    name: str
    description: str
    index_file: str


def claim(
    session: Session, dataset_id: int, *, worker: str, lease_seconds: float, now: datetime
) -> IndexClaim | None:
    """Take a dataset that has no index yet, or whose worker's lease ran out; None otherwise."""
    row = session.get(Dataset, dataset_id, populate_existing=True)
    if row is None or row.status != DatasetStatus.PROCESSING:
        return None
    if row.lease_until is not None and row.lease_until >= now:
        return None
    index_file = new_name(INDEX_KIND, ".db")
    is_hopeless = row.attempt >= MOST_ATTEMPTS
    values = (
        {
            "status": DatasetStatus.FAILED, "status_message": _LOST, "index_file": None,
            "lease_until": None, "updated_at": now,
        }
        if is_hopeless
        else {
            "worker": worker, "attempt": row.attempt + 1, "index_file": index_file,
            "lease_until": now + timedelta(seconds=lease_seconds),
        }
    )  # fmt: skip
    moved = session.execute(
        sa.update(Dataset)
        .where(
            Dataset.id == dataset_id, Dataset.uid == row.uid, Dataset.attempt == row.attempt,
            Dataset.status == DatasetStatus.PROCESSING,
            sa.or_(Dataset.lease_until.is_(None), Dataset.lease_until < now),
        )
        .values(**values)
        .execution_options(synchronize_session=False)
    )  # fmt: skip
    if moved.rowcount != 1:  # type: ignore[attr-defined]
        return None
    if row.index_file is not None:  # whoever had it may have begun to write
        session.add(UnwantedFile(name=row.index_file, unwanted_at=now))
    if is_hopeless:
        return None
    return IndexClaim(
        dataset_id, worker, row.attempt + 1, row.file_name, index_file, row.format,
        row.original_name,
    )  # fmt: skip


def hold(session: Session, mine: IndexClaim, *, lease_seconds: float, now: datetime) -> bool:
    """Renew the lease; False when the dataset is not this worker's any more, or gone."""
    return _update(session, mine, {"lease_until": now + timedelta(seconds=lease_seconds)})


def release(session: Session, mine: IndexClaim, *, now: datetime) -> None:
    """Give a dataset back, for another worker to take at once: nothing was wrong with it."""
    long_ago = now - timedelta(hours=1)
    values = {"lease_until": long_ago, "rung_at": long_ago, "attempt": mine.attempt - 1}
    _update(session, mine, values)


def finish(session: Session, mine: IndexClaim, built: Built, *, now: datetime) -> bool:
    """Write what came of it; False when the dataset is not this worker's any more, or gone."""
    values: dict[str, object] = {
        "status": DatasetStatus.FAILED if built.error else DatasetStatus.READY,
        "status_message": built.error or built.note,
        "index_file": mine.index_file if built.passages else None,
        "passage_count": None if built.error else built.passages,
        "lease_until": None, "updated_at": now,
    }  # fmt: skip
    if built.kind is not None:
        values["kind"] = built.kind
    if built.headers is not None:
        values.update(
            headers=built.headers, preview_rows=built.preview_rows or [],
            row_count=built.row_count, column_count=len(built.headers),
        )  # fmt: skip
    return _update(session, mine, values)


def _update(session: Session, mine: IndexClaim, values: dict[str, object]) -> bool:
    moved = session.execute(
        sa.update(Dataset)
        .where(
            Dataset.id == mine.dataset_id, Dataset.worker == mine.worker,
            Dataset.attempt == mine.attempt, Dataset.index_file == mine.index_file,
            Dataset.status == DatasetStatus.PROCESSING,
        )
        .values(**values)
        .execution_options(synchronize_session=False)
    )  # fmt: skip
    return moved.rowcount == 1  # type: ignore[attr-defined,no-any-return]


def find_unheld(session: Session, *, now: datetime) -> list[int]:
    """Datasets whose bell was lost, or whose worker was; they count as rung now."""
    waits = sa.and_(
        Dataset.lease_until.is_(None),
        Dataset.rung_at < now - timedelta(seconds=RING_AGAIN_SECONDS),
    )
    is_lost = sa.and_(
        Dataset.lease_until < now, Dataset.rung_at < now - timedelta(seconds=RING_LOST_SECONDS)
    )
    is_free = sa.and_(Dataset.status == DatasetStatus.PROCESSING, sa.or_(waits, is_lost))
    ids = list(
        session.scalars(sa.select(Dataset.id).where(is_free).order_by(Dataset.id).limit(BATCH))
    )
    if ids:
        session.execute(
            sa.update(Dataset)
            .where(Dataset.id.in_(ids), is_free)
            .values(rung_at=now)
            .execution_options(synchronize_session=False)
        )
    return ids


def list_searchable(session: Session, account_id: int) -> list[Searchable]:
    """The newest datasets that an account wants its research to look into."""
    rows = session.execute(
        sa.select(Dataset.uid, Dataset.name, Dataset.description, Dataset.index_file)
        .where(
            Dataset.account_id == account_id, Dataset.status == DatasetStatus.READY,
            Dataset.used_in_research, Dataset.index_file.is_not(None),
        )
        .order_by(Dataset.created_at.desc(), Dataset.id.desc())
        .limit(MOST_SEARCHED)
    )  # fmt: skip
    return [Searchable(uid, name, text, file or "") for uid, name, text, file in rows]


def discard(session: Session, name: str, *, now: datetime) -> None:
    """Note a file that nobody wants, in case that whoever deletes it does not come to it."""
    session.add(UnwantedFile(name=name, unwanted_at=now))
    session.flush()


def list_unwanted(session: Session, *, now: datetime) -> list[tuple[int, str]]:
    """(id, name) of files that nobody can be writing any more."""
    before = now - timedelta(seconds=UNWANTED_SECONDS)
    rows = session.execute(
        sa.select(UnwantedFile.id, UnwantedFile.name)
        .where(UnwantedFile.unwanted_at < before)
        .order_by(UnwantedFile.id)
        .limit(BATCH)
    )
    return [(row[0], row[1]) for row in rows]


def forget_unwanted(session: Session, ids: Sequence[int]) -> None:
    """These files are deleted."""
    session.execute(sa.delete(UnwantedFile).where(UnwantedFile.id.in_(ids)))
