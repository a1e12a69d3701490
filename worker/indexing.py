"""Making search indexes of datasets: claim one, have a child process read it, store what it made."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from pathlib import Path

import gevent
from gevent import Greenlet
from sqlalchemy.exc import OperationalError

from app.core.clock import utc_now
from app.core.datasets.building import Built, IndexLimits, build_index
from app.core.datasets.index_shelf import INDEX_CACHE
from app.core.domain.errors import NotFound
from app.core.queue import DATASETS, INDEX_DATASET_TASK, INDEX_TIMEOUT_SECONDS
from app.core.services import dataset_work
from app.core.services.dataset_work import IndexClaim
from app.core.storage import Storage, blocks_of
from worker.context import WorkerContext

log = logging.getLogger(__name__)

FOLDER = "indexing"  # in the data folder; what is in it is worth nothing
MOST_INDEX_BYTES = 4 * 2**30
LEFT_OVER_SECONDS = 2 * INDEX_TIMEOUT_SECONDS
UNFINISHED_SECONDS = 86_400
CACHED_SECONDS = 7 * 86_400
_GONE = "Its file is not there any more."


class Lost(gevent.GreenletExit):  # type: ignore[misc]
    """The dataset is somebody else's now, or gone."""


class Indexer:
    """One per worker process."""

    def __init__(self, context: WorkerContext) -> None:
        settings = context.settings
        self._context = context
        self._storage = Storage(settings.storage_url, settings.data_dir)
        self._limits = IndexLimits(
            settings.dataset_index_passages, settings.dataset_index_seconds
        )

    def execute(self, dataset_id: int) -> None:
        """Index a dataset. Safe to call twice, and to be cut off anywhere."""
        lease = self._context.settings.run_lease_seconds
        mine = self._context.ledger.do(
            lambda session: dataset_work.claim(
                session,
                dataset_id,
                worker=self._context.name,
                lease_seconds=lease,
                now=utc_now(),
            )
        )
        if mine is None:
            return
        body = gevent.spawn(self._work, mine)
        keeper = gevent.spawn(self._keep, mine, body)
        try:
            body.join()
        except BaseException:  # the worker stops: another one begins again
            body.kill()
            self._context.ledger.do(
                lambda session: dataset_work.release(session, mine, now=utc_now())
            )
            raise
        finally:
            keeper.kill()
        if isinstance(body.value, Lost):
            # It may have been stored just before. Another worker has a file of its own.
            self._storage.delete(mine.index_file)
        elif body.exception is not None:
            raise body.exception  # its lease runs out, and it is tried again

    def reap(self) -> None:
        """Ring for datasets that nobody indexes: their worker died, or their bell was lost."""
        now = utc_now()
        found = self._context.ledger.do(
            lambda session: dataset_work.find_unheld(session, now=now)
        )
        for dataset_id in found:
            self._context.queue.enqueue(
                INDEX_DATASET_TASK, str(dataset_id), queue=DATASETS,
                timeout_seconds=INDEX_TIMEOUT_SECONDS,
            )  # fmt: skip

    def sweep(self) -> None:
        """Delete files that no row names any more, and what dead workers left."""
        with self._context.sessions() as session:
            unwanted = dataset_work.list_unwanted(session, now=utc_now())
        for _, name in unwanted:
            self._storage.delete(name)
        if unwanted:
            ids = [id_ for id_, _ in unwanted]
            self._context.ledger.do(lambda session: dataset_work.forget_unwanted(session, ids))
        self._storage.delete_unfinished(older_than_seconds=UNFINISHED_SECONDS)
        data_dir = self._context.settings.data_dir
        _delete_older(data_dir / FOLDER, LEFT_OVER_SECONDS)
        _delete_older(data_dir / INDEX_CACHE, CACHED_SECONDS)

    # ---- One dataset -----------------------------------------------------------

    def _work(self, mine: IndexClaim) -> None:
        root = self._context.settings.data_dir / FOLDER
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{mine.dataset_id}-", dir=root) as name:
            index = Path(name) / "index.db"
            built = self._build(mine, Path(name), index)
            if built.passages:
                self._store(mine, index)
        is_mine = self._context.ledger.do(
            lambda session: dataset_work.finish(session, mine, built, now=utc_now())
        )
        if not is_mine:
            # Its owner removed it, or it was given to another worker, which has a file of its own.
            self._storage.delete(mine.index_file)

    def _build(self, mine: IndexClaim, folder: Path, index: Path) -> Built:
        try:
            source = self._local_copy(mine.file_name, folder)
        except NotFound:
            return Built(error=_GONE)
        return build_index(
            source, index, format_=mine.format, name=mine.name, limits=self._limits
        )

    def _local_copy(self, file_name: str, folder: Path) -> Path:
        local = self._storage.local_path(file_name)
        if local is not None:
            self._storage.size(file_name)  # raises NotFound
            return local
        copy = folder / "source"
        with copy.open("wb") as target:
            for block in self._storage.blocks(file_name):
                target.write(block)
        return copy

    def _store(self, mine: IndexClaim, index: Path) -> None:
        with index.open("rb") as file:
            self._storage.put_as(mine.index_file, blocks_of(file), max_bytes=MOST_INDEX_BYTES)

    def _keep(self, mine: IndexClaim, body: Greenlet[..., None]) -> None:
        """Renew the lease while the child reads; end it when the dataset is gone."""
        lease = self._context.settings.run_lease_seconds
        while True:
            gevent.sleep(lease / 3)
            try:
                is_mine = self._context.ledger.do(
                    lambda session: dataset_work.hold(
                        session, mine, lease_seconds=lease, now=utc_now()
                    )
                )
            except OperationalError:
                log.warning("the lease on a dataset could not be renewed now")
                continue
            if not is_mine:
                body.kill(Lost(), block=False)
                return


def _delete_older(folder: Path, seconds: float) -> None:
    before = time.time() - seconds
    for path in folder.glob("*"):
        if path.stat().st_mtime >= before:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
