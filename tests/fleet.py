"""Nodes and beats for tests: made by the services, as agents would."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.domain.beats import BUCKET_SECONDS, Beat, DeviceBeat, ReceivedBeat
from app.core.domain.nodes import DeviceInfo, Inventory, ReplicaReport, ReplicaState
from app.core.models import Account, Node
from app.core.outbound import OutboundPolicy
from app.core.sealing import Sealer
from app.core.services import beat_store, enrolment, replicas
from app.core.services.beat_rating import Rater

RTX_4090 = DeviceInfo(0, "NVIDIA GeForce RTX 4090", vendor_id=0x10DE, device_id=0x2684,
                      memory_bytes=24 * 2**30)  # fmt: skip
RTX_3090 = DeviceInfo(0, "NVIDIA GeForce RTX 3090", vendor_id=0x10DE, device_id=0x2204,
                      memory_bytes=24 * 2**30)  # fmt: skip
NOBODYS_GPU = DeviceInfo(0, "Acme Fantasy 9000")
_LOOPBACK = ip_network("127.0.0.0/8")
_numbers = itertools.count(1)


@dataclass(frozen=True)
class TestNode:
    """An enrolled node."""

    __test__ = False

    id: int
    client_id: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


def make_node(
    sessions: sessionmaker[Session],
    account_id: int,
    name: str = "node",
    *,
    devices: Sequence[DeviceInfo] = (RTX_4090,),
    cores: int = 8,
    joined: datetime | None = None,
    client_id: str | None = None,
) -> TestNode:
    """A node of this account, with its inventory told."""
    new = enrolment.NewNode(
        name=name, os_type="linux", agent_version="1.0",
        client_id=client_id or f"{next(_numbers):032x}",
        inventory=Inventory(tuple(devices), cpu_name="AMD EPYC", physical_cores=cores),
    )  # fmt: skip
    with sessions.begin() as session:
        account = session.get_one(Account, account_id)
        enrolled = enrolment.enrol_node(
            session, account, new, now=joined or utc_now(), auto_approve=True
        )
        node = enrolled.node
        return TestNode(node.id, node.client_id, enrolled.node_token)


def serve(
    sessions: sessionmaker[Session],
    node: TestNode,
    *model_names: str,
    at: datetime | None = None,
    url: str | None = "http://127.0.0.1:9",
) -> None:
    """Let the node report these models as ready."""
    reports = [
        ReplicaReport(name, name, "vllm", ReplicaState.READY, endpoint_url=url)
        for name in model_names
    ]
    with sessions.begin() as session:
        replicas.report_replicas(
            session, session.get_one(Node, node.id), reports,
            policy=OutboundPolicy((_LOOPBACK,)), sealer=Sealer("k"), now=at or utc_now(),
        )  # fmt: skip


def device_beat(info: DeviceInfo, **measured: Any) -> DeviceBeat:
    """What an agent measures of such a device."""
    return DeviceBeat(
        index=info.index, name=info.name, vendor_id=info.vendor_id, device_id=info.device_id,
        **measured,
    )  # fmt: skip


def beat(node: TestNode | int, at: datetime, **values: Any) -> ReceivedBeat:
    """A beat that the hub received at that moment."""
    node_id = node if isinstance(node, int) else node.id
    return ReceivedBeat(node_id, int(at.timestamp() * 1000), Beat(**values))


def beats(node: TestNode, start: datetime, count: int, **values: Any) -> list[ReceivedBeat]:
    """One beat in each of `count` buckets, from the bucket of `start` on."""
    step = timedelta(seconds=BUCKET_SECONDS)
    return [beat(node, start + number * step, **values) for number in range(count)]


def apply(sessions: sessionmaker[Session], received: Iterable[ReceivedBeat]) -> int:
    """Write beats as the ingester does; gives how many counted."""
    with sessions.begin() as session:
        return beat_store.apply_beats(session, list(received), Rater())


def at(text: str) -> datetime:
    """A UTC moment from `2026-03-01 12:00:00`."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
