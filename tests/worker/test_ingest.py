"""The ingester: from the Redis stream into the tables, whatever dies in between."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from gevent.event import Event
from redis import Redis
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.database import Sessions
from app.core.domain.beats import Beat, ReceivedBeat, encode_received
from app.core.embedded_redis import EmbeddedRedis
from app.core.models import DevicePointsDaily, Heartbeat, Node, NodeDailyStats
from app.core.services.heartbeats import FIELD, GROUP, STREAM, HeartbeatInbox
from app.core.services.node_reports import list_live
from tests import fleet
from tests.fixtures.accounts import Person
from tests.fixtures.databases import Database
from tests.fixtures.waiting import eventually
from worker import ingest
from worker.ingest import Ingester, run_ingest

DAY = datetime.fromisoformat("2026-03-01T00:00:00+00:00")
ROOT = Path(__file__).parents[2]


@dataclass
class Context:
    """What an ingester gets from its worker."""

    name: str
    sessions: Sessions
    store: Redis


@pytest.fixture
def context(sessions: sessionmaker[Session], redis_client: Redis) -> Context:
    return Context("first", sessions, redis_client)


@pytest.fixture
def ingester(context: Context) -> Ingester:
    return Ingester(context)


def put(store: Redis, *received: ReceivedBeat) -> None:
    store.xadd(STREAM, {FIELD: b"\n".join(encode_received(one) for one in received)})


def counts(sessions: sessionmaker[Session]) -> tuple[int, int, int]:
    """Raw rows, counted beats of all days, counted beats of all nodes."""
    with sessions() as session:
        raw = session.scalar(sa.select(sa.func.count()).select_from(Heartbeat))
        days = session.scalar(sa.select(sa.func.sum(NodeDailyStats.heartbeats)))
        nodes = session.scalar(sa.select(sa.func.sum(Node.total_heartbeats)))
    return raw or 0, days or 0, nodes or 0


def step(ingester: Ingester) -> int:
    """One step; the first makes the group."""
    try:
        return ingester.step(block_ms=20)
    except Exception as error:
        if "NOGROUP" not in str(error):
            raise
        ingester._make_group()
        return ingester.step(block_ms=20)


class TestBatches:
    def test_beats_get_into_all_tables_and_out_of_the_stream(
        self, ingester: Ingester, context: Context, owner: Person
    ) -> None:
        node = fleet.make_node(context.sessions, owner.id, joined=DAY)
        put(context.store, *fleet.beats(node, DAY, 40, cpu_usage=20.0, network_rx=5))
        assert step(ingester) == 40
        assert counts(context.sessions) == (40, 40, 40)
        assert context.store.xlen(STREAM) == 0
        assert context.store.xpending(STREAM, GROUP)["pending"] == 0
        with context.sessions() as session:
            assert session.scalar(sa.select(DevicePointsDaily.points_e4)) == 10_000
            last = session.get_one(Node, node.id).last_beat_at
        assert last == DAY + timedelta(seconds=39 * 120)

    def test_the_last_values_stand_where_readers_find_them(
        self, ingester: Ingester, context: Context, owner: Person
    ) -> None:
        node = fleet.make_node(context.sessions, owner.id)
        later, earlier = utc_now(), utc_now() - timedelta(seconds=30)
        put(context.store, fleet.beat(node, later, cpu_usage=80.0))
        put(context.store, fleet.beat(node, earlier, cpu_usage=10.0))
        step(ingester)
        assert list_live(context.store, [node.id])[node.id].beat.cpu_usage == 80.0

    def test_a_line_that_is_no_beat_is_dropped_alone(
        self, ingester: Ingester, context: Context, owner: Person
    ) -> None:
        node = fleet.make_node(context.sessions, owner.id)
        good = encode_received(fleet.beat(node, DAY))
        context.store.xadd(STREAM, {FIELD: b"nonsense\n" + good})
        context.store.xadd(STREAM, {b"other": b"field"})
        step(ingester)
        assert counts(context.sessions)[0] == 1
        assert context.store.xlen(STREAM) == 0

    def test_a_late_beat_does_not_set_the_last_one_back(
        self, ingester: Ingester, context: Context, owner: Person
    ) -> None:
        node = fleet.make_node(context.sessions, owner.id)
        for moment in (DAY + timedelta(hours=2), DAY):
            put(context.store, fleet.beat(node, moment))
            step(ingester)
        with context.sessions() as session:
            last = session.get_one(Node, node.id).last_beat_at
        assert last == DAY + timedelta(hours=2)


class TestCrashes:
    def test_what_was_written_and_not_acknowledged_counts_once(
        self, ingester: Ingester, context: Context, owner: Person,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        node = fleet.make_node(context.sessions, owner.id, joined=DAY)
        put(context.store, *fleet.beats(node, DAY, 30, network_rx=7))

        def die(_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(ingester, "_acknowledge", die)
            with pytest.raises(KeyboardInterrupt):
                step(ingester)
        assert counts(context.sessions) == (30, 30, 30)
        second = Ingester(Context("second", context.sessions, context.store))
        monkeypatch.setattr(ingest, "CLAIM_IDLE_MS", 0)
        assert step(second) == 30
        assert counts(context.sessions) == (30, 30, 30)
        with context.sessions() as session:
            assert session.scalar(sa.select(NodeDailyStats.network_rx)) == 210
        assert context.store.xpending(STREAM, GROUP)["pending"] == 0

    def test_what_was_read_and_not_written_is_claimed_by_another(
        self, ingester: Ingester, context: Context, owner: Person,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        node = fleet.make_node(context.sessions, owner.id)
        step(ingester)
        put(context.store, *fleet.beats(node, DAY, 3))
        assert len(ingester._read(0)) == 1
        monkeypatch.setattr(ingest, "CLAIM_IDLE_MS", 0)
        second = Ingester(Context("second", context.sessions, context.store))
        assert step(second) == 3
        assert counts(context.sessions) == (3, 3, 3)

    def test_a_database_that_is_away_delays_and_loses_nothing(
        self, ingester: Ingester, context: Context, owner: Person,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        node = fleet.make_node(context.sessions, owner.id)
        put(context.store, *fleet.beats(node, DAY, 3))

        def away(_: object) -> None:
            raise OperationalError("COMMIT", None, Exception("away"))

        with monkeypatch.context() as patch:
            patch.setattr(ingester, "_write", away)
            with pytest.raises(OperationalError):
                step(ingester)
        assert context.store.xpending(STREAM, GROUP)["pending"] == 1
        assert step(ingester) == 3
        assert counts(context.sessions) == (3, 3, 3)

    def test_two_ingesters_at_once_share_the_work(
        self, context: Context, owner: Person
    ) -> None:
        nodes = [fleet.make_node(context.sessions, owner.id) for _ in range(5)]
        both = [
            Ingester(Context(name, context.sessions, context.store)) for name in ("one", "two")
        ]
        step(both[0])
        for number in range(40):
            moment = DAY + timedelta(seconds=60 * number)  # two in each bucket
            put(context.store, *(fleet.beat(node, moment) for node in nodes))
        total = 0
        for turn in range(20):
            total += step(both[turn % 2])
        assert total == 200
        assert counts(context.sessions) == (100, 100, 100)


INGEST = """
import sys
from types import SimpleNamespace
from gevent import monkey
monkey.patch_all()
import redis
from gevent.event import Event
from app.core.database import make_engine, make_sessions
from worker.ingest import run_ingest
database_url, redis_url, name = sys.argv[1:]
store = redis.Redis.from_url(redis_url)
sessions = make_sessions(make_engine(database_url))
run_ingest(SimpleNamespace(name=name, sessions=sessions, store=store), Event())
"""


class IngestProcess:
    """An ingester in a process of its own, to kill."""

    def __init__(self, database_url: str, redis_url: str, name: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", INGEST, database_url, redis_url, name], cwd=ROOT
        )

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def inbox(own_redis: EmbeddedRedis) -> Iterator[HeartbeatInbox]:
    opened = HeartbeatInbox(own_redis.url)
    yield opened
    opened.close()


@pytest.mark.slow
class TestKills:
    def test_neither_kill_of_redis_nor_of_the_ingester_loses_or_doubles_a_beat(
        self, own_redis: EmbeddedRedis, clean_database: Database, owner: Person,
        inbox: HeartbeatInbox,
    ) -> None:  # fmt: skip
        sessions = clean_database.sessions
        node = fleet.make_node(sessions, owner.id, joined=DAY)
        store = Redis.from_url(own_redis.url)
        start = int(DAY.timestamp() * 1000)
        acknowledged = 0

        def send(count: int) -> None:
            nonlocal acknowledged
            for _ in range(count):
                at_ms = start + acknowledged * 120_000
                inbox.put(encode_received(ReceivedBeat(node.id, at_ms, Beat(network_rx=1))))
                acknowledged += 1

        first = IngestProcess(clean_database.url, own_redis.url, "one")
        try:
            send(100)
            eventually(lambda: counts(sessions)[0] > 0, what="the first beats are written")
            send(100)
            first.kill()
            send(50)
            own_redis.kill()
            own_redis.start()
            send(50)
            # The dead one's entries would be claimed after half a minute; not to wait for it:
            pending = store.xpending_range(STREAM, GROUP, "-", "+", 1000)
            if pending:
                ids = [entry["message_id"] for entry in pending]
                store.xclaim(STREAM, GROUP, "one", 0, ids, idle=60_000)
            second = IngestProcess(clean_database.url, own_redis.url, "two")
            try:
                eventually(
                    lambda: counts(sessions) == (300, 300, 300), timeout=30,
                    what="all acknowledged beats are written once",
                )  # fmt: skip
                eventually(lambda: store.xlen(STREAM) == 0, what="the stream is empty")
            finally:
                second.kill()
        finally:
            first.kill()
            store.close()
        with sessions() as session:
            assert session.scalar(sa.select(sa.func.sum(NodeDailyStats.network_rx))) == 300
        assert acknowledged == 300


class TestRun:
    def test_ends_when_told(self, context: Context) -> None:
        stop = Event()
        stop.set()
        run_ingest(context, stop)

    def test_makes_its_group_when_redis_has_forgotten_it(
        self, context: Context, owner: Person
    ) -> None:
        node = fleet.make_node(context.sessions, owner.id)
        put(context.store, fleet.beat(node, DAY))

        class AfterTheFirstBeat:
            def is_set(self) -> bool:
                return counts(context.sessions)[0] > 0

        run_ingest(context, AfterTheFirstBeat())
        assert counts(context.sessions) == (1, 1, 1)
