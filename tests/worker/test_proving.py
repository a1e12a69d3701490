"""A TGI that says it is ready is given runs only after it has generated a token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.domain.nodes import ReplicaReport, ReplicaState
from app.core.engines.base import EngineTarget
from app.core.models import Node, Replica
from app.core.outbound import OutboundPolicy
from app.core.sealing import Sealer
from app.core.services import placement, proofs, replicas
from app.core.services.placement import Candidate
from app.core.services.proofs import DueProof
from tests import fleet
from tests.fakes.faults import Fault
from tests.fakes.http_server import FakeServer
from tests.fakes.tgi import MODEL, Tgi, serve
from tests.fixtures.accounts import Person
from worker import proving

Sessions = sessionmaker[Session]
POLICY = OutboundPolicy((ip_network("127.0.0.0/8"),))
SEALER = Sealer("s" * 32)


@dataclass
class Rig:
    """One node whose agent reports one engine, and a worker that tries it."""

    sessions: Sessions
    node_id: int
    url: str

    def report(
        self, state: ReplicaState = ReplicaState.READY, *, url: str = "", engine: str = "tgi"
    ) -> Replica:
        report = ReplicaReport("llama", MODEL, engine, state, endpoint_url=url or self.url)
        with self.sessions.begin() as session:
            node = session.get_one(Node, self.node_id)
            replicas.report_replicas(
                session, node, [report], policy=POLICY, sealer=SEALER, now=utc_now()
            )
        return self.replica

    def claim(
        self, at: datetime | None = None, *, under_way: dict[int, int] | None = None
    ) -> list[DueProof]:
        with self.sessions.begin() as session:
            return proofs.claim_due(
                session, now=at or utc_now(), offline_after_seconds=9e5, busy_seconds=45,
                under_way=under_way,
            )  # fmt: skip

    def try_it(self, at: datetime | None = None) -> bool:
        [due] = self.claim(at)
        return proving.prove(self.context, due)

    @property
    def context(self) -> Any:
        def target(candidate: Candidate) -> EngineTarget:
            return EngineTarget(str(candidate.endpoint_url), candidate.served_name)

        ledger = SimpleNamespace(forget_candidates=lambda: None)
        return SimpleNamespace(
            sessions=self.sessions, policy=POLICY, target=target, ledger=ledger
        )

    @property
    def replica(self) -> Replica:
        with self.sessions() as session:
            return session.query(Replica).one()

    @property
    def is_offered(self) -> bool:
        with self.sessions() as session:
            return bool(
                placement.list_candidates(session, now=utc_now(), offline_after_seconds=9e5)
            )


@pytest.fixture
def engine() -> Tgi:
    return Tgi()


@pytest.fixture
def server(engine: Tgi) -> Iterator[FakeServer]:
    with serve(engine) as server:
        yield server


@pytest.fixture
def rig(sessions: Sessions, owner: Person, server: FakeServer) -> Rig:
    return Rig(sessions, fleet.make_node(sessions, owner.id).id, server.url)


def test_what_generates_is_ready(rig: Rig, server: FakeServer) -> None:
    assert rig.report().state == "starting"
    assert not rig.is_offered
    assert rig.try_it()
    assert (rig.replica.state, rig.replica.error) == ("ready", None)
    assert rig.is_offered
    [asked] = [one for one in server.requests if one.method == "POST"]
    assert asked.json["parameters"]["max_new_tokens"] == 1


def test_what_lists_a_model_and_cannot_generate_is_not(rig: Rig, engine: Tgi) -> None:
    engine.error = "generation"
    rig.report()
    assert not rig.try_it()
    assert rig.replica.state == "failed"
    assert "CUDA out of memory" in str(rig.replica.error)
    assert not rig.is_offered
    # The agent goes on saying that it is ready; that changes nothing.
    assert rig.report().state == "failed"
    assert "CUDA out of memory" in str(rig.replica.error)


def test_it_is_tried_again_later_and_later(rig: Rig, engine: Tgi) -> None:
    engine.error = "generation"
    rig.report()
    pauses = []
    for _ in range(4):
        due = rig.replica.probe_at
        assert due is not None
        assert rig.claim(due - timedelta(seconds=0.01)) == []
        before = utc_now()
        rig.try_it(due)
        after = rig.replica.probe_at
        assert after is not None
        pauses.append(round((after - before).total_seconds()))
    assert pauses == sorted(pauses)
    assert pauses[-1] >= 8 > pauses[0]
    engine.error = None
    assert rig.try_it(rig.replica.probe_at)
    assert (rig.replica.failures, rig.is_offered) == (0, True)


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.GARBAGE, Fault.NOT_HTTP])
def test_an_engine_that_answers_anything_else_fails_in_time(
    rig: Rig, engine: Tgi, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proving, "PROOF_SECONDS", 0.3)
    engine.fault = fault
    rig.report()
    assert not rig.try_it()
    assert rig.replica.error


def test_one_worker_at_a_time_tries_and_a_dead_one_is_succeeded(rig: Rig) -> None:
    rig.report()
    now = utc_now()
    assert len(rig.claim(now)) == 1
    assert rig.claim(now + timedelta(seconds=44)) == []
    assert len(rig.claim(now + timedelta(seconds=46))) == 1


def test_a_node_with_many_engines_keeps_no_other_waiting(rig: Rig) -> None:
    reports = [
        ReplicaReport(f"m{n}", "m", "tgi", ReplicaState.READY, endpoint_url=rig.url)
        for n in range(5)
    ]
    with rig.sessions.begin() as session:
        node = session.get_one(Node, rig.node_id)
        replicas.report_replicas(
            session, node, reports, policy=POLICY, sealer=SEALER, now=utc_now()
        )
    assert len(rig.claim()) == proofs.MOST_OF_A_NODE
    assert rig.claim(under_way={rig.node_id: proofs.MOST_OF_A_NODE}) == []
    assert len(rig.claim(under_way={rig.node_id: 1})) == 1


def test_what_is_proven_stays_so_until_it_changes(rig: Rig) -> None:
    rig.report()
    rig.try_it()
    assert rig.report().state == "ready"
    assert rig.claim() == []
    rig.report(ReplicaState.STARTING)
    assert rig.report().state == "starting"
    assert rig.try_it()
    assert rig.report(url="http://127.0.0.1:9").state == "starting"
    assert not rig.try_it()


def test_a_result_for_what_was_replaced_meanwhile_is_dropped(rig: Rig) -> None:
    rig.report()
    [due] = rig.claim()
    rig.report(url="http://127.0.0.1:9")
    assert proving.prove(rig.context, due)
    assert (rig.replica.state, rig.is_offered) == ("starting", False)


def test_other_kinds_are_believed(rig: Rig, server: FakeServer) -> None:
    assert rig.report(engine="vllm").state == "ready"
    assert rig.claim() == []


def test_nodes_that_are_gone_are_not_tried(rig: Rig) -> None:
    rig.report()
    with rig.sessions.begin() as session:
        session.get_one(Node, rig.node_id).stopped_at = utc_now()
    assert rig.claim() == []
