"""What the hub is told and when, with a clock of our own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.config import Settings
from agent.fleet import Fleet
from agent.hub import HubClient, HubUnavailable, NotEnrolled
from agent.inventory import Machine
from agent.logs import LogBuffer, Redactor
from agent.reporter import Reporter
from agent.state import Identity
from tests.agent.conditions import eventually
from tests.fakes.hub import ENROLMENT_TOKEN, FakeHub, Fault

BEAT = "/agent/v1/heartbeat"
REPLICAS = "/agent/v1/replicas"
INVENTORY = "/agent/v1/inventory"
DESIRED = "/agent/v1/desired"
PERIOD = 30.0


@dataclass
class Rig:
    """A reporter with its surroundings; `now` is its clock."""

    reporter: Reporter
    hub: FakeHub
    client: HubClient
    fleet: Fleet
    desired: list[dict[str, Any]]
    now: list[float] = field(default_factory=lambda: [1000.0])

    def pass_time(self, seconds: float) -> None:
        self.now[0] += seconds

    def step_until(self, seconds: float) -> None:
        """Run the reporter over a span of time, without waiting."""
        end = self.now[0] + seconds
        while True:
            wait = self.reporter.step()
            if self.now[0] + wait > end:
                self.now[0] = end
                return
            self.now[0] += wait + 0.001


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    hub = FakeHub(heartbeat_seconds=PERIOD)

    def make(token: str | None = ENROLMENT_TOKEN) -> Rig:
        settings = Settings(
            hub=hub.url, token=token, name="node", state_dir=tmp_path, mode="relay",
            engine=None, model_name=None,
        )  # fmt: skip
        logs = LogBuffer(Redactor())
        fleet = Fleet(
            settings, environment={}, threads=1, logs=logs,
            find_file=lambda _model, _file: None, on_change=lambda: None,
        )  # fmt: skip
        client = HubClient(
            Identity(hub=hub.url, client_id="0" * 32),
            enrolment_token=token,
            enrolment=lambda: {"name": "node", "os_type": "linux", "inventory": {}},
            on_identity=lambda _identity: None,
        )
        now = [1000.0]
        desired: list[dict[str, Any]] = []
        reporter = Reporter(
            client, Machine(tmp_path), fleet, on_desired=desired.append, clock=lambda: now[0]
        )
        return Rig(reporter, hub, client, fleet, desired, now)

    with hub:
        yield make


def test_a_new_node_enrols_and_tells_everything(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.step_until(5)
    paths = [call.path for call in rig.hub.calls]
    assert paths[0] == "/agent/v1/enrol"
    assert set(paths) == {"/agent/v1/enrol", INVENTORY, REPLICAS, BEAT, DESIRED}
    beat = rig.hub.of(BEAT)[0].body
    assert beat["sequence"] == 1
    assert {"cpu_usage", "memory_usage", "disk_usage", "network_rx", "network_tx",
            "devices", "replicas", "uptime_seconds"} <= set(beat)  # fmt: skip
    assert len(rig.desired) == 1


def test_beats_keep_their_schedule_without_drift(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.step_until(60)  # the first two, whose phase is chance
    first = len(rig.hub.of(BEAT))
    rig.step_until(100 * PERIOD)
    assert len(rig.hub.of(BEAT)) - first == 100
    sequences = [call.body["sequence"] for call in rig.hub.of(BEAT)]
    assert sequences == list(range(1, len(sequences) + 1))


def test_a_beat_that_was_not_answered_keeps_its_number_and_its_bytes(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_rig()
    rig.step_until(60)
    before = len(rig.hub.of(BEAT))
    machine = rig.reporter._machine
    measured = machine.beat()
    monkeypatch.setattr(
        machine, "beat", lambda: {**measured, "network_rx": 100, "network_tx": 7}
    )
    rig.hub.fail(BEAT, Fault(503))
    rig.pass_time(PERIOD)
    with pytest.raises(HubUnavailable):
        rig.reporter.step()
    rig.step_until(2 * PERIOD)
    lost, again, following = (call.body for call in rig.hub.of(BEAT)[before : before + 3])
    assert again["sequence"] == lost["sequence"] == following["sequence"] - 1
    assert [one["network_rx"] for one in (lost, again, following)] == [100, 200, 100]
    assert [one["network_tx"] for one in (lost, again, following)] == [7, 14, 7]


def test_a_machine_that_slept_sends_one_beat_not_all_it_missed(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig()
    rig.step_until(60)
    before = len(rig.hub.of(BEAT))
    rig.pass_time(3600)
    rig.step_until(0)  # the next regular one may be due in a moment
    assert len(rig.hub.of(BEAT)) == before + 1


def test_inventory_is_told_again_only_when_it_changed(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.step_until(1000)
    assert len(rig.hub.of(INVENTORY)) == 1
    rig.reporter._machine.system.memory_bytes += 1  # a module was added
    rig.step_until(400)
    assert len(rig.hub.of(INVENTORY)) == 2


def test_replicas_are_told_every_five_minutes_and_when_they_change(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig()
    rig.step_until(10)
    assert len(rig.hub.of(REPLICAS)) == 1
    rig.step_until(600)
    assert len(rig.hub.of(REPLICAS)) == 3
    rig.fleet.apply_desired([{"model_name": "big", "engine": "vllm", "file": None}])
    rig.step_until(1)
    (replica,) = rig.hub.of(REPLICAS)[-1].body["replicas"]
    assert (replica["model_name"], replica["state"]) == ("big", "failed")
    assert "vllm" in replica["error"]


def test_desired_state_is_fetched_when_its_revision_changes(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig()
    rig.step_until(300)
    assert len(rig.hub.of(DESIRED)) == 1
    rig.hub.want(models=[{"model_name": "m", "engine": "llamacpp", "file": None}])
    rig.step_until(300)
    assert len(rig.hub.of(DESIRED)) == 2
    assert rig.desired[-1]["models"][0]["model_name"] == "m"


def test_a_draining_node_goes_on_reporting(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.hub.draining = True
    rig.step_until(40)
    assert rig.reporter.is_draining
    beats = len(rig.hub.of(BEAT))
    rig.step_until(90)
    assert len(rig.hub.of(BEAT)) == beats + 3


def test_a_busy_hub_s_wish_to_wait_is_passed_on_and_the_beat_is_not_lost(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig()
    rig.step_until(2)
    rig.hub.fail(BEAT, Fault(503, {"Retry-After": "40"}))
    rig.pass_time(PERIOD)
    with pytest.raises(HubUnavailable) as caught:
        rig.reporter.step()
    assert caught.value.retry_after_seconds == 40
    rig.reporter.step()
    assert rig.hub.of(BEAT)[-1].body["sequence"] == 2


def test_a_refused_message_does_not_stop_the_others(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.hub.fail(INVENTORY, Fault(400))
    rig.hub.fail(REPLICAS, Fault(409))
    rig.step_until(5)
    assert len(rig.hub.of(BEAT)) == 1


def test_a_node_that_enrolled_again_tells_everything_again(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig()
    rig.step_until(60)
    rig.hub.forget_node()
    rig.step_until(60)
    assert len(rig.hub.of("/agent/v1/enrol")) == 2
    assert len(rig.hub.of(INVENTORY)) == 2
    assert len(rig.hub.of(DESIRED)) == 2


def test_a_removed_node_without_a_token_ends(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.step_until(5)
    rig.client._enrolment_token = None
    rig.hub.forget_node()
    rig.pass_time(PERIOD)
    with pytest.raises(NotEnrolled):
        rig.reporter.step()


def test_an_agent_whose_hub_is_away_goes_on_when_it_is_back(tmp_path: Path) -> None:
    gone = FakeHub()
    with gone:
        port = int(gone.url.rsplit(":", 1)[1])
    settings = Settings(
        hub=gone.url, token=ENROLMENT_TOKEN, name="node", state_dir=tmp_path, mode="relay",
        engine=None, model_name=None,
    )  # fmt: skip
    fleet = Fleet(
        settings, environment={}, threads=1, logs=LogBuffer(Redactor()),
        find_file=lambda _model, _file: None, on_change=lambda: None,
    )  # fmt: skip
    client = HubClient(
        Identity(hub=gone.url, client_id="0" * 32),
        enrolment_token=ENROLMENT_TOKEN,
        enrolment=lambda: {"name": "node", "os_type": "linux", "inventory": {}},
        on_identity=lambda _identity: None,
    )
    reporter = Reporter(client, Machine(tmp_path), fleet, on_desired=lambda _desired: None)
    stopping = threading.Event()
    thread = threading.Thread(target=reporter.run, args=(stopping,))
    thread.start()
    try:
        with FakeHub(port=port) as hub:
            hub.wait_for(BEAT)
    finally:
        stopping.set()
        reporter.nudge()
        thread.join(60)
    eventually(lambda: not thread.is_alive())
