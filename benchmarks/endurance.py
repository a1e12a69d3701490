"""Many agents for minutes, while Redis, the ingester and the web are killed: is every beat there?

`python -m benchmarks.endurance [--database sqlite|postgresql] [--minutes 10] [--agents 200]`

The hub is `python -m app.local` as an operator starts it; its own supervisor starts again what
is killed. The clock that stamps heartbeats runs so fast that a period of the agents is a
bucket of 120 seconds (see `fast_clock`): ten minutes hold eight hours of points. In the end
the tables must say what the formula says of exactly the beats that were answered.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
import urllib.request  # noqa: E402
import uuid  # noqa: E402
from collections import Counter, defaultdict  # noqa: E402
from contextlib import ExitStack  # noqa: E402
from dataclasses import dataclass, field  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import psutil  # noqa: E402
import sqlalchemy as sa  # noqa: E402
from redis import Redis  # noqa: E402

from benchmarks import processes  # noqa: E402
from benchmarks.endurance_agents import (  # noqa: E402
    BUCKET_SECONDS,
    DEVICES,
    EARLIEST,
    LATEST,
    SimulatedAgent,
    inventory,
)
from benchmarks.fast_clock import VARIABLE, FastClock  # noqa: E402
from benchmarks.report import table  # noqa: E402

ROOT = Path(__file__).parents[1]
DAY_SECONDS = 86_400
E4_POINTS_AN_HOUR = 10_000  # of an RTX 4090, the device that points are measured in
READY_SECONDS = 120.0
SETTLE_SECONDS = 120.0
JOIN_AT_ONCE = 4
# When each part is killed, as a share of the run, and a word of its command line.
KILLS = (
    (0.25, "redis", "/valkey"),
    (0.45, "ingester", "-m worker"),
    (0.65, "web", "-m gunicorn"),
)


@dataclass
class Hub:
    """The local run, its database and its Redis as others see them."""

    folder: Path
    port: int
    service: processes.Service
    engine: sa.Engine
    redis: Redis
    clock: FastClock

    def kill(self, word: str) -> None:
        """kill -9 one part, with all of its processes."""
        for child in psutil.Process(self.service.pid).children():
            if word in " ".join(child.cmdline()):
                os.killpg(child.pid, signal.SIGKILL)
                return
        raise RuntimeError(f"no {word} is running")

    def answers(self) -> bool:
        """Whether it is ready for everything."""
        return processes.answers(f"http://127.0.0.1:{self.port}/readyz")

    def post(self, path: str, token: str, body: Any) -> Any:
        """One JSON request of an agent."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(),
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.loads(answer.read())


@dataclass
class Told:
    """What the tables say: network bytes, counted buckets and points."""

    received: int
    buckets: dict[str, set[int]]
    points_e4: dict[tuple[str, int], int]


@dataclass
class Verdict:
    """What the run came to."""

    answered: int
    written: int
    expected_e4: int
    points_e4: int
    in_doubt: int
    faults: list[str] = field(default_factory=list)


def start_hub(stack: ExitStack, database: str, clock: FastClock) -> Hub:
    """Start everything in a temporary folder; `stack` ends it."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="weft-bench-")))
    port = processes.free_port()
    url = f"sqlite:///{folder / 'weft.db'}"
    if database == "postgresql":
        from tests.fixtures.postgres import start_postgres

        server = start_postgres(settings=("max_connections=200", "listen_addresses="))
        stack.callback(server.stop)
        url = server.url("postgres")
    environment = {
        "WEFT_DATA_DIR": str(folder), "WEFT_PORT": str(port), "WEFT_HOST": "127.0.0.1",
        "WEFT_LOCAL_NODE": "0", "DATABASE_URL": url, "SECRET_KEY": uuid.uuid4().hex,
        "REDIS_URL": f"unix://{folder / 'valkey.sock'}", VARIABLE: clock.as_text(),
        "GUNICORN_CMD_ARGS": "--worker-class benchmarks.fast_clock.Worker",
    }  # fmt: skip
    command = [sys.executable, "-m", "app.local"]
    service = processes.start(command, folder / "hub.log", environment, ROOT)
    stack.callback(service.stop)
    from app.core.database import make_engine

    engine = make_engine(url)
    stack.callback(engine.dispose)
    redis = Redis.from_url(environment["REDIS_URL"])
    stack.callback(redis.close)
    hub = Hub(folder, port, service, engine, redis, clock)
    service.wait_until(hub.answers, READY_SECONDS)
    return hub


def join(hub: Hub, count: int, period: float) -> list[SimulatedAgent]:
    """Enrol so many nodes over the agents' API."""
    from app.core.clock import utc_now
    from app.core.database import make_sessions
    from app.core.models import Account
    from app.core.services import enrolment

    with make_sessions(hub.engine).begin() as session:
        admin = session.scalars(sa.select(Account).limit(1)).one()
        _row, token = enrolment.create_enrolment_token(
            session, admin, now=utc_now(), hours=24, uses=count
        )

    def one(number: int) -> SimulatedAgent:
        answer = hub.post(
            "/agent/v1/enrol", token,
            {"name": f"node {number}", "os_type": "linux", "agent_version": "bench",
             "client_id": uuid.uuid4().hex, "inventory": inventory()},
        )  # fmt: skip
        return SimulatedAgent(
            hub.port, answer["node_token"], answer["client_id"], hub.clock, period
        )

    pool = gevent.pool.Pool(JOIN_AT_ONCE)
    return list(pool.imap_unordered(one, range(count)))


def give_a_past(hub: Hub, agents: list[SimulatedAgent], beats: int) -> dict[str, set[int]]:
    """Let nodes have beaten earlier, as a web process would have written it down."""
    from app.core.domain.beats import Beat, DeviceBeat, ReceivedBeat, encode_received
    from app.core.services.heartbeats import FIELD, STREAM

    last = int(hub.clock.showed // BUCKET_SECONDS)
    devices = [
        DeviceBeat(index, "NVIDIA GeForce RTX 4090", 4318, 9860) for index in range(DEVICES)
    ]
    ids = node_ids(hub)
    past = {}
    for number, agent in enumerate(agents):
        # Not as many for each, so that whole hours are full at different moments.
        buckets = range(last - max(0, beats - number % 12), last)
        past[agent.client_id] = set(buckets)
        lines = [
            encode_received(
                ReceivedBeat(
                    ids[agent.client_id], bucket * BUCKET_SECONDS * 1000, Beat(devices=devices)
                )
            )
            for bucket in buckets
        ]
        if lines:
            hub.redis.xadd(STREAM, {FIELD: b"\n".join(lines)})
    return past


def node_ids(hub: Hub) -> dict[str, int]:
    """The tables' number of each node."""
    with hub.engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT client_id, id FROM nodes"))
        return {row.client_id: row.id for row in rows}


def kill_all(hub: Hub, seconds: float, *, hurry: bool) -> dict[str, float]:
    """Kill each part once; gives how long it took until the hub was ready again."""
    began = time.time()
    back: dict[str, float] = {}
    for share, name, word in KILLS:
        gevent.sleep(max(0.0, began + share * seconds - time.time()))
        _wait_for_rush(hub.clock)
        hub.kill(word)
        killed = time.time()
        if name == "ingester":
            _wait_for_writes(hub, hurry=hurry)
        else:
            gevent.sleep(0.3)
            while not hub.answers():
                gevent.sleep(0.1)
        back[name] = time.time() - killed
    return back


def _wait_for_rush(clock: FastClock) -> None:
    """Until agents are sending: a kill while all of them wait shows little."""
    rush = (EARLIEST + LATEST) / 2 * BUCKET_SECONDS
    gevent.sleep((rush - clock.at(time.time())) % BUCKET_SECONDS / clock.factor)


def _wait_for_writes(hub: Hub, *, hurry: bool) -> None:
    if hurry:
        _owe_nothing(hub)
    before = written(hub)
    while written(hub) == before:
        gevent.sleep(0.1)


def written(hub: Hub) -> int:
    """Beats in the tables: each brought one byte."""
    query = "SELECT coalesce(sum(network_rx), 0) FROM node_daily_stats"
    with hub.engine.connect() as connection:
        return int(connection.execute(sa.text(query)).scalar_one())


def _owe_nothing(hub: Hub) -> None:
    """Let what a dead ingester had taken be claimed now, and not after half a minute."""
    from app.core.services.heartbeats import GROUP, STREAM

    pending: Any = hub.redis.xpending_range(STREAM, GROUP, "-", "+", 1000)
    for entry in pending:
        hub.redis.xclaim(
            STREAM, GROUP, entry["consumer"], 0, [entry["message_id"]], idle=60_000
        )


def read_tables(hub: Hub) -> Told:
    """What was counted, by client id."""
    client_ids = {number: client_id for client_id, number in node_ids(hub).items()}
    buckets: dict[str, set[int]] = defaultdict(set)
    points: dict[tuple[str, int], int] = defaultdict(int)
    with hub.engine.connect() as connection:
        for row in connection.execute(sa.text("SELECT node_id, bucket FROM heartbeats")):
            buckets[client_ids[row.node_id]].add(row.bucket)
        query = "SELECT node_id, device_index, sum(points_e4) AS e4 FROM device_points_daily"
        for row in connection.execute(sa.text(f"{query} GROUP BY node_id, device_index")):
            points[client_ids[row.node_id], row.device_index] = int(row.e4)
    return Told(written(hub), buckets, points)


def wait_settled(hub: Hub, answered: int) -> None:
    """Wait until every answered beat is written and nothing waits in Redis."""
    from app.core.services.heartbeats import STREAM

    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        if written(hub) >= answered and hub.redis.xlen(STREAM) == 0:
            return
        gevent.sleep(0.2)


def points_by_formula(buckets: set[int]) -> int:
    """floor(beats × 120 / 3600) hours of each UTC day, in ten-thousandths of a point."""
    days = Counter(bucket * BUCKET_SECONDS // DAY_SECONDS for bucket in buckets)
    return sum(n * BUCKET_SECONDS // 3600 for n in days.values()) * E4_POINTS_AN_HOUR


def judge(agents: list[SimulatedAgent], past: dict[str, set[int]], told: Told) -> Verdict:
    """Compare the tables with what was answered."""
    verdict = Verdict(sum(len(a.sent) for a in agents), told.received, 0, 0, 0)
    if told.received != verdict.answered:
        verdict.faults.append(f"{verdict.answered} beats answered, {told.received} written")
    for agent in agents:
        name = agent.client_id
        before = past.get(name, set())
        sure = before.union(*(one.buckets for one in agent.sent if len(one.buckets) == 1))
        possible = sure.union(*(one.buckets for one in agent.sent))
        counted = told.buckets.get(name, set())
        verdict.in_doubt += len(possible - sure)
        if not sure <= counted <= possible:
            missing, more = sorted(sure - counted), sorted(counted - possible)
            verdict.faults.append(f"{name}: buckets {missing} missing, {more} too many")
        # A beat that was on its way at a bucket's end counts where the hub says it came.
        expected = points_by_formula(sure | (counted & possible))
        for index in range(DEVICES):
            found = told.points_e4.get((name, index), 0)
            verdict.expected_e4 += expected
            verdict.points_e4 += found
            if found != expected:
                verdict.faults.append(f"{name} device {index}: {found} e4, not {expected}")
    return verdict


def run(chosen: argparse.Namespace) -> Verdict:
    """The whole run; prints its table."""
    seconds = chosen.minutes * 60
    factor = BUCKET_SECONDS / chosen.period
    midnight = time.time() // DAY_SECONDS * DAY_SECONDS
    # Long runs go over midnight; short ones lie in the evening.
    shows = midnight - seconds * factor / 2 if seconds >= 120 else midnight + 12 * 3600
    clock = FastClock(factor, time.time(), shows)
    with ExitStack() as stack:
        hub = start_hub(stack, chosen.database, clock)
        agents = join(hub, chosen.agents, chosen.period)
        past = give_a_past(hub, agents, chosen.earlier_beats)
        over_at = time.monotonic() + seconds
        beating = [gevent.spawn(one.run, lambda: time.monotonic() >= over_at) for one in agents]
        killer = gevent.spawn(kill_all, hub, seconds, hurry=seconds < 120)
        gevent.joinall(beating, raise_error=True)
        back = killer.get()
        wait_settled(hub, sum(len(one.sent) for one in agents))
        verdict = judge(agents, past, read_tables(hub))
    print(_summary(chosen, agents, back, verdict))
    return verdict


def _summary(
    chosen: argparse.Namespace,
    agents: list[SimulatedAgent],
    back: dict[str, float],
    verdict: Verdict,
) -> str:
    refused: Counter[str] = Counter()
    for one in agents:
        refused.update(one.refused)
    again = sum(beat.tries > 1 for one in agents for beat in one.sent)
    rows = [
        ["beats answered with 200", f"{verdict.answered:,}"],
        ["beats in the tables, by the byte that each brought", f"{verdict.written:,}"],
        ["beats sent more than once", f"{again:,}"],
        ["tries that failed", ", ".join(f"{n} {what}" for what, n in sorted(refused.items()))],
        ["points by the formula", f"{verdict.expected_e4 / 10_000:,.4f}"],
        ["points in the tables", f"{verdict.points_e4 / 10_000:,.4f}"],
        ["buckets in doubt (sent over a bucket's end)", str(verdict.in_doubt)],
        *([f"{name} killed: at work again after, s", f"{s:.1f}"] for name, s in back.items()),
        ["faults", str(len(verdict.faults))],
    ]
    title = f"{chosen.database}, {chosen.agents} agents, {chosen.minutes:g} min"
    return "\n".join([table([title, ""], rows), *verdict.faults[:20]])


def main() -> int:
    """Run it; the exit status is 1 when the tables are not right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--agents", type=int, default=200)
    parser.add_argument("--period", type=float, default=2.5, help="seconds between beats")
    parser.add_argument(
        "--earlier-beats", type=int, default=0,
        help="buckets that each node has behind it when the run begins",
    )  # fmt: skip
    return 1 if run(parser.parse_args()).faults else 0


if __name__ == "__main__":
    sys.exit(main())
