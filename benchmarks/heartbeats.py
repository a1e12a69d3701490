"""Heartbeats: how many a second, at what cost, and whether each of them arrives once.

`python -m benchmarks.heartbeats [--database sqlite|postgresql] [--repeat N] [--quick]`

In turns on the same machine: a bare WSGI function that parses and checks the same beat, and
a whole hub with its ingestion running. Both behind the same gunicorn with one gevent worker.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import sqlalchemy as sa
from redis import Redis

from benchmarks import measure, processes, weft
from benchmarks.report import number, table

NODES = 4_000
CONNECTIONS = 64
BURST = 20_000
WORKER_CLASS = "app.local.web_worker.WebWorker"  # the hub's own
GOAL_SHARE = 0.60
GOAL_CPU_US = 700.0
GOAL_BURST_SECONDS = 2.0


@dataclass
class Turn:
    """One measurement of both."""

    database: str
    bare_per_s: float
    weft_per_s: float
    bare_p50_ms: float
    weft_p50_ms: float
    weft_p99_ms: float
    bare_cpu_us: float
    weft_cpu_us: float
    cpu_by_role_us: dict[str, float]
    lag_seconds: float
    burst_seconds: float
    burst_to_tables_seconds: float
    refused: int

    @property
    def share(self) -> float:
        """Of the bare function's rate."""
        return self.weft_per_s / self.bare_per_s


class HubUnderLoad:
    """A hub with many nodes, its database open beside it."""

    def __init__(self, database: str) -> None:
        self.hub = weft._new_hub(1)
        self.roles: dict[str, list[int]] = {}
        if database == "postgresql":
            self.roles["database"] = [weft._start_postgres(self.hub)]
        self.roles["redis"] = [weft._start_redis(self.hub).pid]
        weft._prepare(self.hub)
        self.engine = sa.create_engine(_sqlalchemy_url(self.hub.environment["DATABASE_URL"]))
        self.tokens = self.hub.folder / "tokens"
        self.tokens.write_text("\n".join(_make_nodes(self.engine, NODES)))
        self.roles["worker"] = [self.hub.run("worker", sys.executable, "-m", "worker").pid]
        config = str(weft.ROOT / "app" / "local" / "gunicorn_conf.py")
        web = self.hub.run("web", sys.executable, "-m", "gunicorn", "-c", config, "wsgi:app")
        self.roles["web"] = [web.pid]
        web.wait_until(lambda: processes.answers(f"{self.hub.base_url}/readyz"), 60)
        self.redis = Redis.from_url(self.hub.environment["REDIS_URL"])
        self.sent = 0

    def written(self) -> int:
        """Beats in the tables: each brought one byte."""
        with self.engine.connect() as connection:
            query = sa.text("SELECT coalesce(sum(network_rx), 0) FROM node_daily_stats")
            return int(connection.execute(query).scalar_one())

    def load(self, seconds: float, count: int = 0) -> dict[str, Any]:
        """Send beats; every one that is answered is remembered."""
        report = run_load(self.hub.port, self.tokens, seconds, count)
        self.sent += report["answered"]
        return report

    def wait_written(self, seconds: float = 60.0) -> float:
        """Wait until the tables hold every beat; gives how long that took.

        Raises AssertionError when one is lost or counted twice.
        """
        began = time.perf_counter()
        while (found := self.written()) < self.sent:
            if time.perf_counter() - began > seconds:
                raise AssertionError(f"{self.sent} beats were answered, {found} are there")
            time.sleep(0.02)
        assert found == self.sent, f"{self.sent} beats were answered, {found} are there"
        return time.perf_counter() - began

    def stop(self) -> None:
        """End everything."""
        self.engine.dispose()
        self.redis.close()
        self.hub.stop()


def run_load(port: int, tokens: Path, seconds: float, count: int = 0) -> dict[str, Any]:
    """Run the load generator in a process of its own; its report."""
    command = [
        sys.executable, "-m", "benchmarks.beat_load", "127.0.0.1", str(port), str(tokens),
        str(CONNECTIONS), str(seconds), str(count),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=weft.ROOT, capture_output=True, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def start_bare(folder: Path) -> tuple[processes.Service, int]:
    """The bare function behind the same gunicorn."""
    port = processes.free_port()
    command = [
        sys.executable, "-m", "gunicorn", "-k", WORKER_CLASS, "-w", "1", "--keep-alive", "75",
        "--worker-connections", "4000", "-b", f"127.0.0.1:{port}", "benchmarks.bare_beat:app",
    ]  # fmt: skip
    service = processes.start(command, folder / "bare.log", cwd=weft.ROOT)
    service.wait_until(lambda: processes.answers(f"http://127.0.0.1:{port}/"), 30)
    return service, port


def measure_turn(hub: HubUnderLoad, database: str, seconds: float) -> Turn:
    """Bare and whole, one after the other, and then the burst."""
    bare, port = start_bare(hub.hub.folder)
    try:
        run_load(port, hub.tokens, 1.0)
        before = measure.cpu_seconds({"bare": [bare.pid]})
        bare_report = run_load(port, hub.tokens, seconds)
        bare_cpu = measure.cpu_seconds({"bare": [bare.pid]})["bare"] - before["bare"]
    finally:
        bare.stop()
    hub.load(2.0)
    hub.wait_written()
    start = measure.cpu_seconds(hub.roles)
    report = hub.load(seconds)
    lag = hub.wait_written()
    used = measure.difference(start, measure.cpu_seconds(hub.roles))
    burst = hub.load(120.0, BURST)
    late = hub.wait_written()
    beats = report["answered"]
    return Turn(
        database=database,
        bare_per_s=bare_report["beats_per_s"],
        weft_per_s=report["beats_per_s"],
        bare_p50_ms=bare_report["p50_ms"],
        weft_p50_ms=report["p50_ms"],
        weft_p99_ms=report["p99_ms"],
        bare_cpu_us=bare_cpu / bare_report["answered"] * 1e6,
        weft_cpu_us=sum(used.values()) / beats * 1e6,
        cpu_by_role_us={role: value / beats * 1e6 for role, value in used.items()},
        lag_seconds=lag,
        burst_seconds=burst["seconds"],
        burst_to_tables_seconds=late,
        refused=report["refused"] + burst["refused"],
    )


def _make_nodes(engine: sa.Engine, count: int) -> list[str]:
    """Enrol nodes straight into the tables, each with two GPUs; gives their tokens."""
    from app.core.clock import utc_now
    from app.core.database import make_sessions
    from app.core.ids import hash_secret, new_secret
    from app.core.models import Account, Device, Node

    now = utc_now()
    tokens = [new_secret("wk_") for _ in range(count)]
    with make_sessions(engine).begin() as session:
        owner = session.scalars(sa.select(Account).limit(1)).one()
        nodes = [
            Node(
                client_id=f"{number:032x}", account_id=owner.id, name=f"node-{number}",
                token_hash=hash_secret(token), created_at=now, updated_at=now,
            )
            for number, token in enumerate(tokens)
        ]  # fmt: skip
        session.add_all(nodes)
        session.flush()
        session.add_all(
            Device(
                node_id=node.id, index=index, name="NVIDIA GeForce RTX 4090",
                vendor_id=4318, device_id=9860, tflops=82.6, updated_at=now,
            )
            for node in nodes
            for index in range(2)
        )  # fmt: skip
    return tokens


def _sqlalchemy_url(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


def summary(turns: list[Turn]) -> str:
    """The medians as a table, with what was aimed at."""
    rows = []
    for database in dict.fromkeys(turn.database for turn in turns):
        own = [turn for turn in turns if turn.database == database]

        def middle(name: str, own: list[Turn] = own) -> float:
            return float(median(getattr(turn, name) for turn in own))

        rows += [
            (f"{database}: bare function, beats/s", middle("bare_per_s"), "", ""),
            (f"{database}: Weft, beats/s", middle("weft_per_s"), "", ""),
            (f"{database}: share", middle("share"), f"≥ {GOAL_SHARE}",
             _met(middle("share") >= GOAL_SHARE)),
            (f"{database}: CPU µs a beat, all processes", middle("weft_cpu_us"),
             f"≤ {GOAL_CPU_US:.0f}", _met(middle("weft_cpu_us") <= GOAL_CPU_US)),
            (f"{database}: CPU µs a beat, bare", middle("bare_cpu_us"), "", ""),
            (f"{database}: p50 ms", middle("weft_p50_ms"), "", ""),
            (f"{database}: p99 ms", middle("weft_p99_ms"), "", ""),
            (f"{database}: in the tables after the load, s", middle("lag_seconds"), "", ""),
            (f"{database}: burst of {BURST} sent in, s", middle("burst_seconds"), "", ""),
            (f"{database}: in the tables after the burst, s", middle("burst_to_tables_seconds"),
             f"≤ {GOAL_BURST_SECONDS:.0f}",
             _met(middle("burst_to_tables_seconds") <= GOAL_BURST_SECONDS)),
        ]  # fmt: skip
    cells = [[name, number(value), goal, met] for name, value, goal, met in rows]
    return table(["", "median", "goal", "met"], cells)


def _met(is_met: bool) -> str:
    return "yes" if is_met else "NO"


def main() -> None:
    """Measure, print, and write the JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], action="append")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    turns = []
    for database in chosen.database or ["sqlite", "postgresql"]:
        hub = HubUnderLoad(database)
        try:
            for _ in range(chosen.repeat):
                turns.append(measure_turn(hub, database, chosen.seconds))
                print(json.dumps(asdict(turns[-1])), flush=True)
        finally:
            hub.stop()
    print(summary(turns))
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(turn) for turn in turns], indent=2) + "\n")


if __name__ == "__main__":
    main()
