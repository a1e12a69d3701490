"""A whole Weft for measuring: embedded Valkey, database, web, worker, and one node.

It is started as an operator's would be: the schema and an API key by `app.local.prepare`,
the node over the agent API. The node's replicas are the fake engine, one for each pace.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.processes import NotReadyError, Service, Stack

ROOT = Path(__file__).parents[1]
READY_SECONDS = 60.0
PREPARE_SECONDS = 120.0
BEAT_SECONDS = 20.0  # the hub takes a node for offline after 90
CONCURRENCY = 2048


class NotBuiltError(RuntimeError):
    """This checkout cannot run a whole hub; the message says what is missing."""


@dataclass
class Hub:
    """The parts of a hub while it is being put together."""

    folder: Path
    port: int
    environment: dict[str, str]
    services: dict[str, Service] = field(default_factory=dict)
    clean_up: list[Callable[[], None]] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        """Where the web answers."""
        return f"http://127.0.0.1:{self.port}"

    def run(self, role: str, *command: str) -> Service:
        """Start one of its processes, with its log in the folder."""
        log = self.folder / f"{role}.log"
        self.services[role] = processes.start(command, log, self.environment, self.folder)
        return self.services[role]

    def call(self, method: str, path: str, token: str, body: Any = None) -> Any:
        """One JSON request. Raises urllib.error.HTTPError, OSError."""
        request = urllib.request.Request(  # noqa: S310 - our own http address
            self.base_url + path,
            json.dumps(body).encode() if body is not None else None,
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310
            return json.loads(reply.read() or b"null")

    def stop(self) -> None:
        """End what is running and remove the folder."""
        for service in reversed(self.services.values()):
            service.stop()
        for step in reversed(self.clean_up):
            step()


def start(
    engine_url: str, models: tuple[str, ...], *, web_workers: int = 1, database: str = "sqlite"
) -> Stack:
    """Start a hub in a temporary folder, with one node that serves `models`.

    Raises NotBuiltError, NotReadyError; nothing is left running then.
    """
    for needed in ("wsgi.py", "worker/__main__.py", "migrations/env.py"):
        if not (ROOT / needed).exists():
            raise NotBuiltError(f"{needed} is not there")
    hub = _new_hub(web_workers)
    try:
        return _start_in(hub, engine_url, models, database)
    except BaseException:
        hub.stop()
        raise


def _new_hub(web_workers: int) -> Hub:
    folder = tempfile.TemporaryDirectory(prefix="weft-bench-")
    port = processes.free_port()
    path = Path(folder.name)
    environment = {
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "WEFT_DATA_DIR": str(path),
        "WEFT_PORT": str(port),
        "WEFT_HOST": "127.0.0.1",
        "WEFT_WEB_WORKERS": str(web_workers),
        "WEFT_WORKERS": "1",
        "DATABASE_URL": f"sqlite:///{path / 'weft.db'}",
        "REDIS_URL": f"unix://{path / 'valkey.sock'}",
        "SECRET_KEY": uuid.uuid4().hex,
        "ALLOWED_NODE_NETWORKS": "127.0.0.0/8",
        "AUTO_APPROVE_PROVIDERS": "1",
    }
    return Hub(path, port, environment, clean_up=[folder.cleanup])


def _start_in(hub: Hub, engine_url: str, models: tuple[str, ...], database: str) -> Stack:
    roles = {}
    if database == "postgresql":
        roles["database"] = [_start_postgres(hub)]
    roles["redis"] = [_start_redis(hub).pid]
    record = _prepare(hub)
    roles["worker"] = [hub.run("worker", sys.executable, "-m", "worker").pid]
    config = str(ROOT / "app" / "local" / "gunicorn_conf.py")
    web = hub.run("web", sys.executable, "-m", "gunicorn", "--config", config, "wsgi:app")
    roles["web"] = [web.pid]
    _wait_for(hub, web, "GET /readyz", lambda: processes.answers(f"{hub.base_url}/readyz"))
    _join_node(hub, record["enrolment_token"], engine_url, models)
    api_key = record["api_key"]
    _wait_for(hub, web, "its models", lambda: models[0] in _served(hub, api_key))
    return Stack(
        name="weft",
        base_url=hub.base_url,
        api_key=api_key,
        pids_by_role=roles,
        torbiz_header=f"Authorization: Bearer {api_key}",
        on_stop=hub.stop,
    )


def _wait_for(hub: Hub, web: Service, what: str, ready: Callable[[], bool]) -> None:
    try:
        web.wait_until(ready, READY_SECONDS)
    except NotReadyError as error:
        worker = hub.services["worker"].log_tail()
        answer = processes.body_of(f"{hub.base_url}/readyz")
        raise NotReadyError(
            f"waited for {what}\n{error}\nworker:\n{worker}\n/readyz: {answer}"
        ) from None


def _start_redis(hub: Hub) -> Service:
    from app.core.embedded_redis import EmbeddedRedis

    redis = EmbeddedRedis(hub.folder)
    service = hub.run("redis", *redis.command())
    service.wait_until(redis.answers, 10.0)
    return service


def _start_postgres(hub: Hub) -> int:
    """A throwaway cluster that keeps what it commits, as one in service would."""
    from tests.fixtures.postgres import start_postgres

    server = start_postgres(settings=("max_connections=200", "listen_addresses="))
    hub.clean_up.append(server.stop)
    hub.environment["DATABASE_URL"] = server.url("postgres")
    return server.process.pid


def _prepare(hub: Hub) -> dict[str, str]:
    """Schema, admin, API key, enrolment token: what `make run` makes at its first start."""
    step = hub.run("setup", sys.executable, "-m", "app.local.prepare")
    try:
        status = step.process.wait(PREPARE_SECONDS)
    except subprocess.TimeoutExpired:
        status = -1
    if status:
        raise NotReadyError(f"the set-up step failed:\n{step.log_tail()}")
    step.stop()
    del hub.services["setup"]
    return dict(json.loads((hub.folder / "local.json").read_text()))


def _served(hub: Hub, api_key: str) -> list[str]:
    try:
        return [row["id"] for row in hub.call("GET", "/v1/models", api_key)["data"]]
    except urllib.error.URLError:
        return []


def _join_node(hub: Hub, enrolment: str, engine_url: str, models: tuple[str, ...]) -> None:
    """Enrol a node over the agent API, report its replicas, and keep it online."""
    inventory = {
        "cpu_name": "bench", "cpu_physical_cores": 1, "cpu_logical_cores": 1,
        "cpu_frequency_mhz": 1000, "memory_bytes": 2**34, "swap_bytes": 0, "disk_bytes": 2**36,
        "os_name": "Linux", "os_version": "1", "agent_version": "bench", "engines": ["vllm"],
        "devices": [{"index": 0, "name": "bench", "kind": "cpu"}],
    }  # fmt: skip
    node = hub.call(
        "POST",
        "/agent/v1/enrol",
        enrolment,
        {
            "name": "bench",
            "client_id": uuid.uuid4().hex,
            "os_type": "linux",
            "agent_version": "bench",
            "inventory": inventory,
        },
    )
    token = node["node_token"]
    _beat(hub, token, 1)
    answer = hub.call(
        "PUT",
        "/agent/v1/replicas",
        token,
        {"replicas": [_replica(model, engine_url) for model in models]},
    )
    refused = [row for row in answer["replicas"] if not row["accepted"]]
    if refused:
        raise NotReadyError(f"the hub refused the node's replicas: {refused}")
    stopping = threading.Event()
    beats = threading.Thread(target=_keep_beating, args=(hub, token, stopping), daemon=True)
    beats.start()
    hub.clean_up.append(stopping.set)


def _replica(model: str, engine_url: str) -> dict[str, Any]:
    return {
        "model_name": model,
        "served_name": model,
        "engine": "vllm",
        "state": "ready",
        "endpoint_url": engine_url,
        "concurrency": CONCURRENCY,
        "context_tokens": 131072,
        "engine_version": None,
        "error": None,
        "api_key": None,
    }


def _beat(hub: Hub, token: str, sequence: int) -> None:
    values = {
        "cpu_usage": 1.0, "memory_usage": 1.0, "disk_usage": 1.0, "network_rx": 0,
        "network_tx": 0, "devices": [], "uptime_seconds": int(time.monotonic()),
    }  # fmt: skip
    hub.call("POST", "/agent/v1/heartbeat", token, {"sequence": sequence, **values})


def _keep_beating(hub: Hub, token: str, stopping: threading.Event) -> None:
    sequence = 1
    while not stopping.wait(BEAT_SECONDS):
        sequence += 1
        try:
            _beat(hub, token, sequence)
        except OSError as error:
            print(f"a heartbeat failed: {error}", flush=True)
