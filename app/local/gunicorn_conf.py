"""How gunicorn serves the hub: `gunicorn -c app/local/gunicorn_conf.py wsgi:app`."""

from __future__ import annotations

import gc
from typing import Any

from app.config import Settings
from app.local.checks import raise_open_files_limit

_settings = Settings.from_env()

bind = [
    f"[{_settings.host}]:{_settings.port}"
    if ":" in _settings.host
    else f"{_settings.host}:{_settings.port}"
]
worker_class = "app.local.web_worker.WebWorker"
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


def on_starting(_server: Any) -> None:
    """Allow many open files."""
    raise_open_files_limit()


def post_worker_init(worker: Any) -> None:
    """Let workers reach the agents that will connect here, for as long as we serve."""
    relay = worker.wsgi.extensions["weft_relay"]
    relay.stop_when(lambda: not worker.alive)
    relay.start()
    # What the start made stays: a collection that looks at all of it stops a worker for
    # tens of milliseconds.
    gc.collect()
    gc.freeze()
    # Requests make many objects and hardly a cycle: looking after every 700 costs a twentieth.
    gc.set_threshold(10_000)
