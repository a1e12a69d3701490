"""`python -m worker`: one process that runs many jobs at once."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import gc  # noqa: E402
import logging  # noqa: E402
import sys  # noqa: E402

from app.config import Settings  # noqa: E402
from app.core.queue import DATASETS, DEFAULT, RESEARCH, RUNS, TASK_NAMES  # noqa: E402
from worker import tasks  # noqa: E402
from worker.context import WorkerContext, build_context  # noqa: E402
from worker.duties import Duties  # noqa: E402
from worker.execution import Executor  # noqa: E402
from worker.schedule import Schedule  # noqa: E402
from worker.stream_worker import StreamWorker  # noqa: E402

RESEARCH_SLOTS = 64
DATASET_SLOTS = 1  # each has a child process busy on a core
DEFAULT_SLOTS = 32

log = logging.getLogger("weft.worker")


def main() -> int:
    """Work until told to stop. Exit status 0 when everything under way was finished."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    logging.getLogger("rq").setLevel(logging.WARNING)
    settings = Settings.from_env()
    context = build_context(settings)
    executor = Executor(context)
    tasks.install(context, executor)
    context.writer.when_reader_gone(executor.reader_gone)
    duties = Duties(context, executor)
    schedule = Schedule(context.store)
    worker = StreamWorker(
        settings.redis_url,
        name=context.name,
        slots={
            RUNS: settings.run_slots,
            RESEARCH: RESEARCH_SLOTS,
            DATASETS: DATASET_SLOTS,
            DEFAULT: DEFAULT_SLOTS,
        },
        task_names=TASK_NAMES,
        on_start=[duties.start],
        on_tick=[schedule.tick],
    )
    tasks.hand_over_when(worker.is_stopping)
    # What the start made stays: no collection need look at it.
    gc.collect()
    gc.freeze()
    # Runs make many objects and hardly a cycle: looking after every 700 costs a twentieth.
    gc.set_threshold(10_000)
    try:
        finished = worker.work()
    finally:
        schedule.stop()
        duties.stop()
        _let_go(context)
    return 0 if finished else 1


def _let_go(context: WorkerContext) -> None:
    """Write what is left to write before the process ends."""
    if not context.writer.close():
        log.error("Redis did not take the last pieces of some answers")
    context.store.close()


if __name__ == "__main__":
    sys.exit(main())
