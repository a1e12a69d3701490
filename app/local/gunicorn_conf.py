"""How gunicorn serves the hub: `gunicorn -c app/local/gunicorn_conf.py wsgi:app`."""

from __future__ import annotations

import shutil
from typing import Any

from app.config import Settings
from app.local.checks import raise_open_files_limit

_settings = Settings.from_env()
_metrics_dir = _settings.data_dir / "metrics"

bind = [
    f"[{_settings.host}]:{_settings.port}"
    if ":" in _settings.host
    else f"{_settings.host}:{_settings.port}"
]
worker_class = "gevent"
workers = _settings.web_workers
worker_connections = 4000
backlog = 2048
keepalive = 75  # seconds; agents and SDKs come back every 30
timeout = 60  # a worker whose loop stands still for so long is replaced
graceful_timeout = 30  # streams under way may finish
control_socket_disable = True
accesslog = None
errorlog = "-"
loglevel = "warning"
proc_name = "weft-web"
# Several processes add up their metrics through files in this folder.
raw_env = [f"PROMETHEUS_MULTIPROC_DIR={_metrics_dir}"]


def on_starting(_server: Any) -> None:
    """Begin the metrics anew and allow many open files."""
    shutil.rmtree(_metrics_dir, ignore_errors=True)
    _metrics_dir.mkdir(parents=True)
    raise_open_files_limit()


def post_worker_init(worker: Any) -> None:
    """Let workers reach the agents that will connect here, for as long as we serve."""
    relay = worker.wsgi.extensions["weft_relay"]
    relay.stop_when(lambda: not worker.alive)
    relay.start()


def child_exit(_server: Any, worker: Any) -> None:
    """Forget the gauges of a web process that ended."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
