"""Datasets for a running hub: given to an account as its web would, indexed by its worker."""

from __future__ import annotations

import os
from pathlib import Path

import sqlalchemy as sa
from redis import Redis

from app.core.clock import utc_now
from app.core.models import Dataset
from app.core.queue import DATASETS, INDEX_DATASET_TASK, INDEX_TIMEOUT_SECONDS, RunQueue
from app.core.services import datasets
from app.core.storage import Storage
from tests.fixtures.hub import RunningHub
from tests.fixtures.waiting import eventually


def storage_of(hub: RunningHub) -> Storage:
    """The hub's files."""
    return Storage("", hub.folder / "var")


def give(
    hub: RunningHub, account_id: int, name: str, content: bytes, *, as_pipe: bool = False
) -> str:
    """Give an account a file and ring for its index; the dataset's uid.

    `as_pipe`: the stored file becomes a named pipe, which is read when somebody writes to it.
    """
    files = storage_of(hub)
    stored = files.put_bytes(datasets.KIND, content)
    inspected = datasets.inspect(files, stored.name, name)
    if as_pipe:
        path = files.local_path(stored.name)
        assert path is not None
        path.unlink()
        os.mkfifo(path)
    new = datasets.NewDataset(name, "", name, stored, inspected, suffix_when_taken=False)
    with hub.sessions.begin() as session:
        made = datasets.add(session, account_id, new, now=utc_now())
        dataset_id, uid = made.id, made.uid
    with Redis.from_url(hub.redis.url) as store:
        RunQueue(store).enqueue(
            INDEX_DATASET_TASK, str(dataset_id), queue=DATASETS,
            timeout_seconds=INDEX_TIMEOUT_SECONDS,
        )  # fmt: skip
    return uid


def look_at(hub: RunningHub, uid: str) -> Dataset | None:
    """A dataset as it is now."""
    with hub.sessions() as session:
        return session.scalar(sa.select(Dataset).where(Dataset.uid == uid))


def wait_indexed(hub: RunningHub, uid: str) -> Dataset:
    """The dataset once it is ready or failed."""

    def ended() -> Dataset | None:
        found = look_at(hub, uid)
        assert found is not None
        return found if found.status != "processing" else None

    found = eventually(ended, timeout=60, what=f"dataset {uid} is indexed")
    assert found is not None
    return found


def files_of(hub: RunningHub, kind: str) -> set[str]:
    """Names of the hub's stored files of a kind, half-written ones too."""
    folder = Path(hub.folder / "var" / "files" / kind)
    return {f"{kind}/{path.name}" for path in folder.glob("*")}
