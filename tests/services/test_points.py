"""Points: what devices earn, whatever happens to their beats on the way."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.domain.beats import DeviceBeat, ReceivedBeat
from app.core.domain.nodes import DeviceInfo
from app.core.models import Account, DevicePointsDaily, Heartbeat, Node, NodeDailyStats
from app.core.services import beat_store, points, points_check
from app.core.services.points import E4, PointsFilter
from tests import fleet
from tests.fixtures.accounts import Person
from tests.fleet import NOBODYS_GPU, RTX_3090, RTX_4090

DAY = datetime.fromisoformat("2026-03-01T00:00:00+00:00")
MULTIPLIER_3090 = round(35.6 / 82.6 * E4)
Sessions = sessionmaker[Session]


def earned(sessions: Sessions, person: Person) -> dict[tuple[date, int, str], tuple[int, int]]:
    """(day, device index, name) -> (beats, points in ten-thousandths)."""
    with sessions() as session:
        page = points.list_points(session, PointsFilter(person.id), page=1, page_size=100)
    assert page.total_e4 == sum(row.points_e4 for row in page.rows)
    assert page.count == len(page.rows)
    return {
        (row.day, row.device_index, row.device_name): (row.heartbeats, row.points_e4)
        for row in page.rows
    }


class TestOneDay:
    @pytest.mark.parametrize(
        ("buckets", "hours"), [(1, 0), (29, 0), (30, 1), (45, 1), (60, 2), (720, 24)]
    )
    def test_whole_hours_count(
        self, sessions: Sessions, owner: Person, buckets: int, hours: int
    ) -> None:
        node = fleet.make_node(sessions, owner.id, joined=DAY)
        assert fleet.apply(sessions, fleet.beats(node, DAY, buckets)) == buckets
        assert earned(sessions, owner) == {
            (DAY.date(), 0, RTX_4090.name): (buckets, hours * E4)
        }

    def test_a_device_of_the_table_earns_by_its_speed(
        self, sessions: Sessions, owner: Person
    ) -> None:
        node = fleet.make_node(sessions, owner.id, devices=[RTX_3090])
        fleet.apply(sessions, fleet.beats(node, DAY, 60))
        assert earned(sessions, owner)[DAY.date(), 0, RTX_3090.name][1] == 2 * MULTIPLIER_3090

    def test_an_unknown_device_earns_a_twentieth_and_has_no_id(
        self, sessions: Sessions, owner: Person
    ) -> None:
        node = fleet.make_node(sessions, owner.id, devices=[NOBODYS_GPU])
        fleet.apply(sessions, fleet.beats(node, DAY, 30))
        with sessions() as session:
            page = points.list_points(session, PointsFilter(owner.id), page=1, page_size=9)
        assert (page.rows[0].points_e4, page.rows[0].device_id) == (500, 0)

    def test_a_machine_without_a_gpu_earns_by_its_cores(
        self, sessions: Sessions, owner: Person
    ) -> None:
        node = fleet.make_node(sessions, owner.id, devices=[], cores=64)
        fleet.apply(sessions, fleet.beats(node, DAY, 30))
        assert earned(sessions, owner) == {
            (DAY.date(), 0, "AMD EPYC"): (30, round(6.4 / 82.6 * E4))
        }

    def test_two_gpus_earn_each(self, sessions: Sessions, owner: Person) -> None:
        second = DeviceInfo(1, RTX_3090.name, vendor_id=0x10DE, device_id=0x2204)
        node = fleet.make_node(sessions, owner.id, devices=[RTX_4090, second])
        fleet.apply(sessions, fleet.beats(node, DAY, 30))
        assert earned(sessions, owner) == {
            (DAY.date(), 0, RTX_4090.name): (30, E4),
            (DAY.date(), 1, RTX_3090.name): (30, MULTIPLIER_3090),
        }

    def test_a_device_swapped_at_noon_gives_two_rows(
        self, sessions: Sessions, owner: Person
    ) -> None:
        node = fleet.make_node(sessions, owner.id)
        noon = DAY + timedelta(hours=12)
        morning = fleet.beats(node, DAY, 360, devices=[fleet.device_beat(RTX_4090)])
        evening = fleet.beats(node, noon, 360, devices=[fleet.device_beat(RTX_3090)])
        fleet.apply(sessions, morning + evening)
        assert earned(sessions, owner) == {
            (DAY.date(), 0, RTX_4090.name): (360, 12 * E4),
            (DAY.date(), 0, RTX_3090.name): (360, 12 * MULTIPLIER_3090),
        }

    def test_midnight_parts_the_days(self, sessions: Sessions, owner: Person) -> None:
        node = fleet.make_node(sessions, owner.id, joined=DAY)
        before = DAY + timedelta(hours=23)
        fleet.apply(sessions, fleet.beats(node, before, 60))
        assert {key[0]: value[1] for key, value in earned(sessions, owner).items()} == {
            DAY.date(): E4,
            DAY.date() + timedelta(days=1): E4,
        }

    def test_agents_cannot_count_for_themselves(
        self, sessions: Sessions, owner: Person
    ) -> None:
        node = fleet.make_node(sessions, owner.id)
        moment = DAY + timedelta(seconds=5)
        many = [
            fleet.beat(node, moment + timedelta(milliseconds=n), sequence=n, uptime_seconds=9e5)
            for n in range(500)
        ]
        assert fleet.apply(sessions, many) == 1

    def test_a_beat_of_no_node_changes_nothing(self, sessions: Sessions) -> None:
        assert fleet.apply(sessions, [fleet.beat(2**30, DAY)]) == 0
        with sessions() as session:
            assert session.query(Heartbeat).count() == 0


# A beat: its bucket within three days, its place within the bucket, and which GPU it names.
BEATS = st.lists(
    st.tuples(
        st.integers(0, 3 * 720 - 1), st.integers(0, 119_999), st.sampled_from(["one", "two"])
    ),
    min_size=1,
    max_size=80,
)


def devices_of(bucket: int) -> list[DeviceInfo]:
    """Which devices the node has then: a second one from the second day on, swapped at noon."""
    first = RTX_4090 if bucket % 720 < 360 else RTX_3090
    if bucket < 720:
        return [first]
    return [first, DeviceInfo(1, NOBODYS_GPU.name)]


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(sent=BEATS, seed=st.integers(0, 2**32))
def test_points_follow_from_the_set_of_buckets_alone(
    sessions: Sessions, owner: Person, sent: list[tuple[int, int, str]], seed: int
) -> None:
    node = fleet.make_node(sessions, owner.id, joined=DAY)
    received = [_beat_in(node, bucket, offset) for bucket, offset, _ in sent]
    expected = _oracle({bucket for bucket, _, _ in sent})
    chance = random.Random(seed)
    late = chance.choices(received, k=len(received))
    delivered = received + late
    chance.shuffle(delivered)
    cut = chance.randrange(len(delivered) + 1)
    for part in (delivered[:cut], delivered[cut:], delivered):  # the last is a redelivery
        fleet.apply(sessions, part)
    with sessions() as session:
        rows = session.query(DevicePointsDaily).filter_by(node_id=node.id).all()
        found = {
            (row.day, row.device_index, row.device_name): (row.heartbeats, row.points_e4)
            for row in rows
        }
        days = session.query(NodeDailyStats).filter_by(node_id=node.id).all()
        kept = session.get_one(Node, node.id)
        counted = points_check.count_from_beats(session, node.id, since=DAY.date())
    assert found == expected
    assert sum(day.heartbeats for day in days) == kept.total_heartbeats
    assert kept.uptime_days == len(days)
    assert sum(one.points_e4 for one in counted.values()) == sum(
        value[1] for value in expected.values()
    )


def _beat_in(node: fleet.TestNode, bucket: int, offset_ms: int) -> ReceivedBeat:
    moment = DAY + timedelta(seconds=bucket * 120, milliseconds=offset_ms)
    values = [fleet.device_beat(info) for info in devices_of(bucket)]
    return fleet.beat(node, moment, devices=values, cpu_usage=50.0)


def _oracle(buckets: set[int]) -> dict[tuple[date, int, str], tuple[int, int]]:
    """The definition of points, as plainly as it can be said."""
    multiplier = {RTX_4090.name: E4, RTX_3090.name: MULTIPLIER_3090, NOBODYS_GPU.name: 500}
    beats: dict[tuple[date, int, str], int] = {}
    for bucket in buckets:
        day = DAY.date() + timedelta(days=bucket // 720)
        for device in devices_of(bucket):
            key = (day, device.index, device.name)
            beats[key] = beats.get(key, 0) + 1
    return {
        key: (count, count * 120 // 3600 * multiplier[key[2]]) for key, count in beats.items()
    }


class TestRedelivery:
    def test_network_bytes_are_added_once(self, sessions: Sessions, owner: Person) -> None:
        node = fleet.make_node(sessions, owner.id)
        four = [
            fleet.beat(node, DAY + timedelta(seconds=30 * n), sequence=n + 1, network_rx=10,
                       network_tx=1)
            for n in range(4)
        ]  # fmt: skip
        for delivery in (four[:1], four[:3], four, four):
            fleet.apply(sessions, delivery)
        with sessions() as session:
            day = session.query(NodeDailyStats).one()
            beat = session.query(Heartbeat).one()
        assert (day.heartbeats, day.network_rx, day.network_tx) == (1, 40, 4)
        assert (beat.network_rx, beat.network_tx) == (40, 4)

    def test_a_beat_that_the_agent_sent_twice_is_one(
        self, sessions: Sessions, owner: Person
    ) -> None:
        node = fleet.make_node(sessions, owner.id)
        fleet.apply(sessions, [fleet.beat(node, DAY, sequence=7, network_rx=10)])
        again = fleet.beat(node, DAY + timedelta(seconds=1), sequence=7, network_rx=10)
        fleet.apply(sessions, [again])
        with sessions() as session:
            assert session.query(Heartbeat).one().network_rx == 10

    @pytest.mark.parametrize("at_once", [True, False])
    def test_so_is_one_that_comes_again_in_the_next_bucket(
        self, sessions: Sessions, owner: Person, at_once: bool
    ) -> None:
        node = fleet.make_node(sessions, owner.id)
        first = fleet.beat(node, DAY + timedelta(seconds=119), sequence=7, network_rx=10)
        again = fleet.beat(node, DAY + timedelta(seconds=121), sequence=7, network_rx=10)
        following = fleet.beat(node, DAY + timedelta(seconds=125), sequence=8, network_rx=1)
        for delivery in [[first, again, following]] if at_once else [[first], [again]]:
            fleet.apply(sessions, delivery)
        fleet.apply(sessions, [first, again, following])
        with sessions() as session:
            rows = session.query(Heartbeat).order_by(Heartbeat.bucket).all()
            assert [row.network_rx for row in rows] == [10, 1]
            assert session.query(DevicePointsDaily).one().heartbeats == 2

    def test_beats_without_a_number_are_never_taken_for_each_other(
        self, sessions: Sessions, owner: Person
    ) -> None:
        node = fleet.make_node(sessions, owner.id)
        fleet.apply(sessions, fleet.beats(node, DAY, 3, sequence=0))
        fleet.apply(sessions, fleet.beats(node, DAY + timedelta(seconds=360), 3, sequence=0))
        with sessions() as session:
            assert session.query(DevicePointsDaily).one().heartbeats == 6


class TestDeviceValues:
    def test_what_devices_measured_is_kept_with_the_beat_that_counts(
        self, sessions: Sessions, owner: Person
    ) -> None:
        node = fleet.make_node(sessions, owner.id)
        devices = [
            DeviceBeat(
                0, "RTX 4090", usage=103.0, mem_usage=40.25, temp=61.0, power_usage=300.5
            ),
            DeviceBeat(1, "RTX 4090"),
        ]
        late = [DeviceBeat(0, "RTX 4090", usage=1.0)]
        fleet.apply(sessions, [fleet.beat(node, DAY, devices=devices)])
        fleet.apply(sessions, [fleet.beat(node, DAY + timedelta(seconds=9), devices=late)])
        with sessions() as session:
            values = session.query(Heartbeat).one().device_values
        assert values == [[0, 100.0, 40.25, 61.0, 300.5], [1, None, None, None, None]]

    def test_a_beat_without_devices_has_none(self, sessions: Sessions, owner: Person) -> None:
        node = fleet.make_node(sessions, owner.id)
        fleet.apply(sessions, [fleet.beat(node, DAY)])
        with sessions() as session:
            assert session.query(Heartbeat).one().device_values == []


class TestRebuild:
    def test_agrees_with_the_ingester(self, sessions: Sessions, owner: Person) -> None:
        node = fleet.make_node(sessions, owner.id, devices=[RTX_4090])
        fleet.apply(sessions, fleet.beats(node, DAY, 100))
        now = DAY + timedelta(days=1)
        with sessions.begin() as session:
            assert points_check.rebuild_points(session, now=now, kept_days=30) == []

    def test_finds_and_mends_a_wrong_row(self, sessions: Sessions, owner: Person) -> None:
        node = fleet.make_node(sessions, owner.id)
        fleet.apply(sessions, fleet.beats(node, DAY, 60))
        with sessions.begin() as session:
            session.query(DevicePointsDaily).one().points_e4 = 1
        now = DAY + timedelta(days=1)
        with sessions.begin() as session:
            found = points_check.rebuild_points(session, now=now, kept_days=30, writes=True)
        assert [(one.stored_e4, one.counted_e4) for one in found] == [(1, 2 * E4)]
        assert earned(sessions, owner)[DAY.date(), 0, RTX_4090.name] == (60, 2 * E4)

    def test_leaves_days_alone_whose_beats_are_gone(
        self, sessions: Sessions, owner: Person
    ) -> None:
        node = fleet.make_node(sessions, owner.id)
        fleet.apply(sessions, fleet.beats(node, DAY, 60))
        now = DAY + timedelta(days=40)
        with sessions.begin() as session:
            assert (
                beat_store.expire_beats(session, now=now, kept_days=30, node_ids=[node.id])
                == 60
            )
        with sessions.begin() as session:
            assert (
                points_check.rebuild_points(session, now=now, kept_days=30, writes=True) == []
            )
        assert earned(sessions, owner)[DAY.date(), 0, RTX_4090.name] == (60, 2 * E4)


class TestLedger:
    def test_days_that_are_over_are_granted_once(
        self, sessions: Sessions, owner: Person
    ) -> None:
        node = fleet.make_node(sessions, owner.id)
        fleet.apply(sessions, fleet.beats(node, DAY, 60))
        now = DAY + timedelta(days=1, hours=1)
        for expected in (2 * E4, 0):
            with sessions.begin() as session:
                assert points.settle_points(session, now=now) == expected
        with sessions() as session:
            balance = points.balance(session, owner.id)
        assert (balance.granted_e4, balance.held_e4) == (2 * E4, 0)

    def test_today_is_not_granted_yet(self, sessions: Sessions, owner: Person) -> None:
        node = fleet.make_node(sessions, owner.id)
        fleet.apply(sessions, fleet.beats(node, DAY, 60))
        with sessions.begin() as session:
            assert points.settle_points(session, now=DAY + timedelta(hours=9)) == 0

    def test_beats_that_came_late_are_granted_as_a_further_row(
        self, sessions: Sessions, owner: Person
    ) -> None:
        node = fleet.make_node(sessions, owner.id)
        now = DAY + timedelta(days=1, hours=1)
        for start in (DAY, DAY + timedelta(hours=5)):
            fleet.apply(sessions, fleet.beats(node, start, 30))
            with sessions.begin() as session:
                points.settle_points(session, now=now)
        with sessions() as session:
            grants = points.list_grants(session, owner.id)
            assert [grant.sequence for grant in grants] == [1, 0]
            assert sum(grant.amount_e4 for grant in grants) == 2 * E4

    def test_points_of_an_unapproved_provider_are_held_until_approval(
        self, sessions: Sessions, owner: Person, admin: Person
    ) -> None:
        node = fleet.make_node(sessions, owner.id)
        fleet.apply(sessions, fleet.beats(node, DAY, 30))
        now = DAY + timedelta(days=60)
        with sessions.begin() as session:
            account = session.get_one(Account, owner.id)
            account.is_gpu_provider_approved = False
            session.flush()
            assert points.settle_points(session, now=now) == 0
            assert points.balance(session, owner.id).held_e4 == E4
            given = points.approve_provider(session, account, actor_id=admin.id, now=now)
            assert given == E4
            assert points.balance(session, owner.id).held_e4 == 0
            assert points.list_grants(session, owner.id)[0].actor_id == admin.id

    def test_an_adjustment_says_who_and_why(
        self, sessions: Sessions, owner: Person, admin: Person
    ) -> None:
        with sessions.begin() as session:
            points.adjust(
                session, owner.id, -5 * E4, actor_id=admin.id, note="sold", now=utc_now()
            )
            assert points.balance(session, owner.id).granted_e4 == -5 * E4
            assert points.list_grants(session, owner.id)[0].note == "sold"
