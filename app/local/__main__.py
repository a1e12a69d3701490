"""`python -m app.local`: the whole network on this machine."""

from __future__ import annotations

import sys
import time

from app.config import BadSettings, Settings
from app.core.embedded_redis import EmbeddedRedis
from app.local import programs, terminal
from app.local.checks import (
    FolderLock,
    NotPossible,
    check_socket_path,
    raise_open_files_limit,
    wait_for_port,
)
from app.local.record import read_record
from app.local.supervisor import StartFailed, StopRequested, Supervisor

NODE_SECONDS = 60.0
LOOK_SECONDS = 0.25


def main() -> int:
    """Start everything, watch it until Ctrl-C, stop everything. The exit status."""
    try:
        settings = Settings.from_env()
        lock = FolderLock(settings.data_dir)
        wait_for_port(settings.host, settings.port, after_a_kill=lock.was_killed)
    except (BadSettings, NotPossible) as error:
        terminal.complain(f"Weft can't start.\n{error}")
        return 1
    raise_open_files_limit()
    supervisor = Supervisor(terminal.show)
    supervisor.catch_signals()
    try:
        start_all(supervisor, settings)
        supervisor.watch()
    except StopRequested:
        pass
    except (StartFailed, NotPossible) as error:
        terminal.complain(f"Weft can't start.\n{error}")
        return 1
    finally:
        terminal.say("Stopping…")
        supervisor.stop()
        supervisor.close()
        lock.release()
    terminal.say("Stopped.")
    return 0


def start_all(supervisor: Supervisor, settings: Settings) -> None:
    """Redis, schema, workers, web, node, each when what it needs is ready; then the welcome."""
    environment = programs.hub_environment(settings)
    redis = EmbeddedRedis(settings.data_dir)
    if settings.redis_url == redis.url:
        check_socket_path(redis.socket_path)
        redis.stop_leftover()
        supervisor.start(programs.redis_program(redis, environment))
    supervisor.run_once(programs.prepare_step(environment))
    for worker in programs.worker_programs(settings, environment):
        supervisor.start(worker)
    supervisor.start(programs.web_program(settings, environment))
    record = read_record(settings.data_dir)
    models: list[str] = []
    if settings.local_node:
        supervisor.start(programs.node_program(settings, record.enrolment_token))
        models = wait_for_model(supervisor, settings, record.api_key)
    url = settings.public_url or programs.hub_url(settings)
    terminal.say(terminal.welcome(url, record, models))


def wait_for_model(supervisor: Supervisor, settings: Settings, api_key: str) -> list[str]:
    """The models of the network; empty when the node takes too long. Raises StopRequested."""
    deadline = time.monotonic() + NODE_SECONDS
    models: list[str] = []
    while not models and time.monotonic() < deadline:
        supervisor.turn(LOOK_SECONDS)
        if supervisor.is_stopping:
            raise StopRequested
        models = programs.served_models(settings, api_key)
    return models


if __name__ == "__main__":
    sys.exit(main())
