"""`python -m worker`: one process that runs many jobs at once."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import logging  # noqa: E402
import sys  # noqa: E402

from app.config import Settings  # noqa: E402
from app.core.queue import DEFAULT, RESEARCH, RUNS, TASK_NAMES  # noqa: E402
from worker import context  # noqa: E402
from worker.schedule import Schedule  # noqa: E402
from worker.stream_worker import StreamWorker  # noqa: E402

RESEARCH_SLOTS = 64
DEFAULT_SLOTS = 32


def main() -> int:
    """Work until told to stop. Exit status 0 when everything under way was finished."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    logging.getLogger("rq").setLevel(logging.WARNING)
    settings = Settings.from_env()
    worker_context = context.build(settings)
    context.install(worker_context)
    worker = StreamWorker(
        settings.redis_url,
        slots={RUNS: settings.run_slots, RESEARCH: RESEARCH_SLOTS, DEFAULT: DEFAULT_SLOTS},
        task_names=TASK_NAMES,
        on_start=[worker_context.start],
        on_tick=[Schedule(worker_context.redis).tick],
    )
    try:
        finished = worker.work()
    finally:
        worker_context.close()
    return 0 if finished else 1


if __name__ == "__main__":
    sys.exit(main())
