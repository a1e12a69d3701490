"""A worker process for tests: `python -m tests.worker.start_worker '{"redis_url": …}'`."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import logging  # noqa: E402
import sys  # noqa: E402

from worker.stream_worker import StreamWorker  # noqa: E402


def main() -> None:
    """Run a StreamWorker with the arguments given as JSON."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    arguments = json.loads(sys.argv[1])
    names = arguments.pop("task_names", None)
    if names is not None:
        arguments["task_names"] = frozenset(names)
    finished = StreamWorker(arguments.pop("redis_url"), **arguments).work()
    sys.exit(0 if finished else 3)


if __name__ == "__main__":
    main()
