"""How long fabric's queries take, and whether they stay fast as the tables grow.

`python -m benchmarks.points [--database sqlite|postgresql] [--nodes 10000] [--data DIR]`

Two sizes of each database, the second a tenth of the first, filled with the same pattern: an
account has 20 nodes; one account of the large size has 1 000. Times are inside the services:
the query and its rows as Python objects, without HTTP, JSON and Redis.

Both sizes are vacuumed and analysed after they are filled, as autovacuum does in service, and
every account is asked for once before its times count, so that first reads do not;
PostgreSQL's own buffers hold a fifth of the large size. `nothing` is SELECT 1: a round trip
to the database and the machine's own unrest.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.database import make_engine, make_sessions
from app.core.models import Account, Base, Device, Node
from app.core.services import catalog, monitoring, nodes, points
from app.core.services.monitoring import Span
from app.core.services.nodes import NodeFilter
from app.core.services.points import PointsFilter
from benchmarks.report import number, table

NODES_PER_ACCOUNT = 20
LARGE_ACCOUNT_NODES = 1_000
BUCKETS = 100  # raw beats of each node
TODAY = datetime(2026, 3, 1, 12, tzinfo=UTC)
CALLS = 300
GOAL_P95_MS = 5.0
GOAL_LARGE_P95_MS = 30.0
GOAL_GROWTH = 1.5
Query = Callable[[Session, int], object]
_NOTHING = sa.select(1)


@dataclass
class Figure:
    """One query at one size."""

    database: str
    query: str
    nodes: int
    p50_ms: float
    p95_ms: float
    # Of this process, which is all of it with SQLite: a busy machine does not lengthen it.
    cpu_p50_ms: float


def nothing(session: Session, _account_id: int) -> object:
    """The floor: a statement that finds nothing out."""
    return session.connection().execute(_NOTHING).all()


def month_of_points(session: Session, account_id: int) -> object:
    """The first page of a month with part of a name."""
    end = TODAY.date()
    wanted = PointsFilter(
        account_id, client_name="node", start=end - timedelta(days=30), end=end
    )
    return points.list_points(session, wanted, page=1, page_size=20)


def year_of_points(session: Session, account_id: int) -> object:
    """The first page of everything."""
    return points.list_points(session, PointsFilter(account_id), page=1, page_size=20)


def late_page_of_points(session: Session, account_id: int) -> object:
    """The last page that can be asked for."""
    return points.list_points(session, PointsFilter(account_id), page=100, page_size=20)


def points_of_a_device(session: Session, account_id: int) -> object:
    """A kind of device in a month."""
    end = TODAY.date()
    wanted = PointsFilter(account_id, device_id=9860, start=end - timedelta(days=30), end=end)
    return points.list_points(session, wanted, page=1, page_size=100)


def client_list(session: Session, account_id: int) -> object:
    """All nodes of an account, with their health."""
    found, _ = nodes.list_nodes(
        session, NodeFilter(account_id, valid_status="valid"), now=TODAY,
        offline_after_seconds=90,
    )  # fmt: skip
    return monitoring.health_of(session, found, now=TODAY)


def client_stat(session: Session, account_id: int) -> object:
    """An account's nodes in figures."""
    return monitoring.fleet_stat(session, account_id, now=TODAY, offline_after_seconds=90)


def client_monitor(session: Session, account_id: int) -> object:
    """A month of days of one node."""
    mine = dict(list(monitoring.own_nodes(session, account_id).items())[:1])
    span = Span(TODAY - timedelta(days=30), None)
    return monitoring.list_days(session, mine, span, now=TODAY)


def client_health(session: Session, account_id: int) -> object:
    """The raw beats of one node."""
    mine = dict(list(monitoring.own_nodes(session, account_id).items())[:1])
    return monitoring.list_beats(session, mine, Span(), now=TODAY)


def models_get(session: Session, _account_id: int) -> object:
    """The catalogue."""
    return catalog.list_versions(session, fits_in_gb=24)


QUERIES: tuple[Query, ...] = (
    nothing, month_of_points, year_of_points, late_page_of_points, points_of_a_device, client_list,
    client_stat, client_monitor, client_health, models_get,
)  # fmt: skip


def fill(engine: sa.Engine, count: int, days: int, *, has_large_account: bool) -> None:
    """Accounts, nodes, devices, days, points and raw beats."""
    Base.metadata.create_all(engine)
    _make_nodes(engine, count, has_large_account=has_large_account)
    first = TODAY.date() - timedelta(days=days - 1)
    is_postgres = engine.dialect.name == "postgresql"
    numbers = "generate_series(0, :last) AS numbers(n)" if is_postgres else "numbers"
    counting = "" if is_postgres else (
        "WITH RECURSIVE numbers(n) AS MATERIALIZED (SELECT 0 UNION ALL SELECT n + 1 FROM numbers"
        " WHERE n < :last)"
    )  # fmt: skip
    # SQLite keeps rows by primary key, however they come: as they lie is quickest. PostgreSQL
    # keeps them as they come: by day, and the nodes of a day in no order.
    joined = f"nodes CROSS JOIN {numbers}"
    if is_postgres:
        joined += " ORDER BY n, hashint4(nodes.id)"
    day = "CAST(:first AS date) + n" if is_postgres else "date(:first, n || ' days')"
    at = "TIMESTAMP '2026-03-01 12:00:00' AT TIME ZONE 'UTC'" if is_postgres else (
        "'2026-03-01 12:00:00.000000'"
    )  # fmt: skip
    values = {"first": first.isoformat(), "last": days - 1}
    with engine.begin() as connection:
        connection.execute(
            sa.text(f"""
            INSERT INTO device_points_daily (node_id, day, device_index, device_key,
                device_name, device_id, heartbeats, multiplier_e4, points_e4)
            {counting} SELECT nodes.id, {day}, 0, 'k', 'NVIDIA GeForce RTX 4090', 9860, 700,
                10000, 230000 FROM {joined}"""),  # noqa: S608
            values,
        )
        connection.execute(
            sa.text(f"""
            INSERT INTO node_daily_stats (node_id, day, heartbeats, cpu_sum, cpu_count,
                memory_sum, memory_count, disk_sum, disk_count, network_rx, network_tx,
                first_at, last_at)
            {counting} SELECT nodes.id, {day}, 700, 7000, 700, 7000, 700, 7000, 700, 1, 1,
                {at}, {at} FROM {joined}"""),  # noqa: S608
            values,
        )
        newest = int(TODAY.timestamp()) // 120
        connection.execute(
            sa.text(f"""
            INSERT INTO heartbeats (node_id, bucket, received_at, cpu_usage, memory_usage,
                disk_usage, network_rx, network_tx, devices, last_at_ms, last_sequence,
                is_merged)
            {counting} SELECT nodes.id, {newest} - n, {at}, 1, 1, 1, 1, 1, '[]', 0, 0, FALSE
                FROM {joined}"""),  # noqa: S608
            {"last": BUCKETS - 1},
        )  # fmt: skip
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE" if is_postgres else "ANALYZE"))


def _make_nodes(engine: sa.Engine, count: int, *, has_large_account: bool) -> None:
    began = TODAY - timedelta(days=400)
    large = LARGE_ACCOUNT_NODES if has_large_account else 0
    accounts = [large] if large else []
    accounts += [NODES_PER_ACCOUNT] * ((count - large) // NODES_PER_ACCOUNT)
    with make_sessions(engine).begin() as session:
        session.add_all(
            Account(
                uid=f"{number:024x}", username=f"user-{number}", created_at=began,
                updated_at=began,
            )
            for number in range(len(accounts))
        )  # fmt: skip
        session.flush()
        owners = [owner for owner, size in enumerate(accounts, 1) for _ in range(size)]
        session.add_all(
            Node(
                client_id=f"{number:032x}", account_id=owner, name=f"node {number}",
                created_at=began, updated_at=began, last_beat_at=TODAY, uptime_days=365,
                total_heartbeats=365 * 700,
            )
            for number, owner in enumerate(owners)
        )  # fmt: skip
        session.flush()
        session.add_all(
            Device(
                node_id=node_id, index=0, name="NVIDIA GeForce RTX 4090", vendor_id=4318,
                device_id=9860, tflops=82.6, updated_at=began,
            )
            for node_id in range(1, len(owners) + 1)
        )  # fmt: skip


Times = tuple[list[float], list[float]]


def measure(engine: sa.Engine, query: Query, accounts: list[int], calls: int) -> Times:
    """Milliseconds of each call and of CPU in it, sorted, after some that do not count."""
    return _measure_in_turn(query, [(engine, accounts)], calls)[0]


def _measure_in_turn(
    query: Query, sizes: list[tuple[sa.Engine, list[int]]], calls: int
) -> list[Times]:
    """One call on each size, then the next: a machine that slows down slows all of them.

    Each account is asked for once before: first reads do not count.
    """
    gc.collect()
    gc.freeze()  # as a web process does once it has started
    chance = random.Random(7)
    found: list[Times] = [([], []) for _ in sizes]
    sessions = [make_sessions(engine) for engine, _ in sizes]
    for begin, (_, accounts) in zip(sessions, sizes, strict=True):
        for account_id in accounts:
            with begin() as session:
                query(session, account_id)
    for number_of_call in range(calls + 20):
        for begin, (_, accounts), (times, cpu) in zip(sessions, sizes, found, strict=True):
            with begin() as session:
                session.connection()
                account_id = chance.choice(accounts)
                began, used = time.perf_counter(), time.process_time()
                query(session, account_id)
                if number_of_call >= 20:
                    times.append((time.perf_counter() - began) * 1000)
                    cpu.append((time.process_time() - used) * 1000)
    return [(sorted(times), sorted(cpu)) for times, cpu in found]


def figures_of(whole: sa.Engine, tenth: sa.Engine, database: str, count: int) -> list[Figure]:
    """Every query at both sizes, on accounts of the usual size; the list also on the large."""
    first, *usual = _account_ids(whole)
    sizes = [(whole, usual), (tenth, _account_ids(tenth))]
    found = []
    for query in QUERIES:
        for times, nodes_there in zip(
            _measure_in_turn(query, sizes, CALLS), (count, count // 10), strict=True
        ):
            found.append(_figure(database, query.__name__, nodes_there, times))
    times = measure(whole, client_list, [first], 60)
    found.append(_figure(database, "client_list of 1 000", count, times))
    return found


def _account_ids(engine: sa.Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.scalars(sa.text("SELECT id FROM accounts ORDER BY id")))


def _figure(database: str, query: str, count: int, measured: Times) -> Figure:
    times, cpu = measured
    return Figure(
        database,
        query,
        count,
        p50_ms=times[len(times) // 2],
        p95_ms=times[len(times) * 95 // 100],
        cpu_p50_ms=cpu[len(cpu) // 2],
    )


@contextmanager
def opened(database: str, name: str, kept: Path | None) -> Iterator[sa.Engine]:
    """The database of that name in `kept`; without a folder one that is gone afterwards."""
    if database == "sqlite":
        with tempfile.TemporaryDirectory(prefix="weft-bench-") as folder:
            engine = make_engine(f"sqlite:///{kept or folder}/{name}.db")
            yield engine
            engine.dispose()
        return
    from tests.fixtures.postgres import start_postgres

    server = start_postgres(
        settings=("max_connections=50", "listen_addresses=", "shared_buffers=256MB"),
        keep_in=kept / name if kept else None,
    )
    try:
        url = server.url("postgres").replace("postgresql:", "postgresql+psycopg:")
        engine = make_engine(url)
        yield engine
        engine.dispose()
    finally:
        server.stop()


@contextmanager
def filled(
    database: str, count: int, chosen: argparse.Namespace, *, is_whole: bool
) -> Iterator[sa.Engine]:
    """A database with so many nodes in it."""
    name = f"{database}-{'whole' if is_whole else 'tenth'}-{count}x{chosen.days}"
    with opened(database, name, chosen.data) as engine:
        began = time.perf_counter()
        if not is_filled(engine):
            fill(engine, count, chosen.days, has_large_account=is_whole)
        print(f"{name}: filled in {time.perf_counter() - began:.0f} s", flush=True)
        yield engine


def is_filled(engine: sa.Engine) -> bool:
    """Whether an earlier run filled this database; the raw beats come last."""
    if not sa.inspect(engine).has_table("heartbeats"):
        return False
    with engine.connect() as connection:
        return bool(connection.scalar(sa.text("SELECT EXISTS (SELECT 1 FROM heartbeats)")))


def summary(found: list[Figure]) -> str:
    """Each query at both sizes, and how much longer it takes on the larger."""
    rows = []
    small = {(one.database, one.query): one for one in found if one.nodes != found[0].nodes}
    for one in found:
        if one.nodes != found[0].nodes:
            continue
        tenth = small.get((one.database, one.query))
        goal = GOAL_LARGE_P95_MS if "1 000" in one.query else GOAL_P95_MS
        growth = one.p50_ms / tenth.p50_ms if tenth else None
        is_met = one.p95_ms <= goal and (growth is None or growth <= GOAL_GROWTH)
        rows.append(
            [
                f"{one.database}: {one.query}", number(one.p50_ms), number(one.p95_ms), number(one.cpu_p50_ms),
                number(tenth.p50_ms if tenth else None), number(tenth.p95_ms if tenth else None),
                number(growth), f"≤ {goal:.0f} ms, ≤ {GOAL_GROWTH}×", "yes" if is_met else "NO",
            ]
        )  # fmt: skip
    head = [
        "",
        "p50 ms",
        "p95 ms",
        "CPU p50",
        "tenth p50",
        "tenth p95",
        "growth",
        "goal",
        "met",
    ]
    return table(head, rows)


def main() -> None:
    """Fill, measure, print, and write the JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], action="append")
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--data", type=Path, help="keep the filled databases in this folder")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    if chosen.data:
        chosen.data.mkdir(parents=True, exist_ok=True)
    found: list[Figure] = []
    for database in chosen.database or ["sqlite", "postgresql"]:
        with (
            filled(database, chosen.nodes, chosen, is_whole=True) as whole,
            filled(database, chosen.nodes // 10, chosen, is_whole=False) as tenth,
        ):
            found += figures_of(whole, tenth, database, chosen.nodes)
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n")
    print(summary(found))


if __name__ == "__main__":
    main()
