"""Which programs the local run consists of, and how each is started."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.config import Settings, child_environment, setting_names
from app.core.embedded_redis import EmbeddedRedis
from app.local.supervisor import Program

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.0/8,::1/128"
ASK_SECONDS = 2.0


def hub_url(settings: Settings) -> str:
    """The hub as programs on this machine reach it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    return (
        f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"
    )


def hub_environment(settings: Settings) -> dict[str, str]:
    """The environment of the hub's processes: where nothing is set, the local run's defaults.

    The local node's engine listens on loopback, and its owner is who runs the hub.
    """
    changes = {"WEFT_DATA_DIR": str(settings.data_dir), "PYTHONUNBUFFERED": "1"}
    if "allowed_node_networks" not in settings.model_fields_set:
        changes["ALLOWED_NODE_NETWORKS"] = LOOPBACK
    if "auto_approve_providers" not in settings.model_fields_set:
        changes["AUTO_APPROVE_PROVIDERS"] = "1"
    return child_environment(changes)


def redis_program(redis: EmbeddedRedis, environment: dict[str, str]) -> Program:
    """The embedded Valkey."""
    command = (*redis.command(), "--logfile", str(redis.log_path))
    return Program("redis", command, environment, redis.answers, ready_seconds=30)


def prepare_step(environment: dict[str, str]) -> Program:
    """Migrations, first admin, key, token."""
    return Program("setup", _python("app.local.prepare"), environment, ready_seconds=300)


def worker_programs(settings: Settings, environment: dict[str, str]) -> list[Program]:
    """The RQ workers. The web's readiness waits for one of them."""
    count = settings.rq_workers
    names = [f"worker-{n}" for n in range(1, count + 1)] if count > 1 else ["worker"]
    return [Program(name, _python("worker"), environment, stop_seconds=3) for name in names]


def web_program(settings: Settings, environment: dict[str, str]) -> Program:
    """The web server, ready when database, Redis and worker are."""
    config = str(ROOT / "app" / "local" / "gunicorn_conf.py")
    return Program(
        "web",
        _python("gunicorn", "--config", config, "wsgi:app"),
        environment,
        answers_ok(f"{hub_url(settings)}/readyz"),
        stop_seconds=4,
    )


def node_program(settings: Settings, enrolment_token: str) -> Program:
    """The local node: an agent with the built-in engine. It gets none of the hub's secrets."""
    hub_secrets = setting_names()
    environment = {
        name: value for name, value in child_environment({}).items() if name not in hub_secrets
    }
    environment |= {
        "PYTHONUNBUFFERED": "1",
        "WEFT_AGENT_HUB": hub_url(settings),
        "WEFT_AGENT_TOKEN": enrolment_token,
        "WEFT_AGENT_STATE_DIR": str(settings.data_dir / "node"),
    }
    return Program("node", _python("agent"), environment, stop_seconds=6)


def served_models(settings: Settings, api_key: str) -> list[str]:
    """The models that `/v1/models` names now."""
    answer = _get(f"{hub_url(settings)}/v1/models", api_key)
    rows = answer.get("data", []) if isinstance(answer, dict) else []
    return [str(row["id"]) for row in rows]


def answers_ok(url: str) -> Callable[[], bool]:
    """Asks whether a GET of `url` succeeds now."""

    def ask() -> bool:
        return _get(url) is not None

    return ask


def _get(url: str, api_key: str = "") -> Any:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - our own http URL
    try:
        with urllib.request.urlopen(request, timeout=ASK_SECONDS) as answer:  # noqa: S310
            return json.load(answer)
    except (urllib.error.URLError, OSError, json.JSONDecodeError):
        return None


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *arguments)
