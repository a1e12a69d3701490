"""torbiz's way to join: a machine is registered by a person, one model at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.accounts import Identity
from app.core.domain.errors import EngineError, Forbidden, InvalidInput, NotFound
from app.core.domain.nodes import DeviceInfo, Inventory, ReplicaReport, ReplicaState
from app.core.engines.base import EngineStatus, EngineTarget
from app.core.engines.registry import engine_client
from app.core.models import Account, HardwareRecord, Node, Replica
from app.core.outbound import OutboundPolicy
from app.core.sealing import Sealer
from app.core.services import accounts, nodes, replicas
from app.core.services.enrolment import NewNode, enrol_node
from app.core.services.inventory import update_inventory

DEFAULT_CONCURRENCY = {"tgi": 128, "vllm": 64, "sglang": 64}


@dataclass(frozen=True, slots=True)
class Hardware:
    """A machine as torbiz's clients describe it: texts, kept as they were given."""

    gpu_info: str
    cpu_name: str
    cpu_core: str
    cpu_frequency: str
    total_memory: str
    total_swap: str
    ram: str
    os_name: str
    os_version: str


@dataclass(frozen=True, slots=True)
class Registration:
    """One model of one machine."""

    model_name: str
    hardware: Hardware
    user_id: int | None = None
    endpoint_url: str | None = None
    engine: str | None = None
    served_name: str | None = None
    concurrency: int | None = None
    context_tokens: int | None = None
    engine_version: str | None = None
    node_token: str | None = None


@dataclass(frozen=True, slots=True)
class Registered:
    """What the machine is told; `node_token` is the one that it called with, if any."""

    node: Node
    node_token: str
    gpu_id: int
    model_name: str


def look_at(wanted: Registration, policy: OutboundPolicy) -> Registration:
    """The registration with what its engine says of itself: its own name for the model.

    Talks to the engine, so no database session may be held. An engine that does not answer
    yet is taken as described. Raises InvalidInput for a name without a letter and for a URL
    that the hub may not reach.
    """
    if not any(char.isalpha() for char in wanted.model_name):
        raise InvalidInput("A model's name has at least one letter.", field="model_name")
    if wanted.endpoint_url is None:
        return replace(wanted, engine=wanted.engine or "openai")
    reason = replicas.why_not(_report(wanted), policy)
    if reason is not None:
        raise InvalidInput(reason, field="endpoint_url")
    for kind in (wanted.engine,) if wanted.engine else ("tgi", "openai"):
        target = EngineTarget(
            _without_v1(wanted.endpoint_url), wanted.model_name,
            connect_timeout_seconds=3.0, first_chunk_timeout_seconds=5.0,
            idle_timeout_seconds=5.0,
        )  # fmt: skip
        try:
            status = engine_client(kind, policy).check(target)
        except EngineError:
            continue
        return replace(
            wanted,
            engine=kind,
            endpoint_url=target.base_url,
            served_name=_served_name(wanted.model_name, status),
            concurrency=status.max_concurrent_requests,
            context_tokens=status.context_tokens,
            engine_version=status.version,
        )
    return replace(
        wanted, engine=wanted.engine or "openai",
        endpoint_url=_without_v1(wanted.endpoint_url),
    )  # fmt: skip


def register(
    session: Session,
    caller: Identity,
    wanted: Registration,
    *,
    sealer: Sealer,
    auto_approve: bool,
    now: datetime,
) -> Registered:
    """Make or update a node that serves a model.

    `wanted` comes from `look_at`. Raises Forbidden for somebody else's account, NotFound
    for a token that is unknown.
    """
    report = _report(wanted)
    account = accounts.get_account(session, _account_id(caller, wanted.user_id))
    node, token = _node_for(session, account, wanted, auto_approve=auto_approve, now=now)
    gpu_id = _keep_hardware(session, node, wanted.hardware, now=now)
    replicas.add_replica(session, node, report, sealer=sealer, now=now)
    node.last_beat_at = now
    session.flush()
    return Registered(node, token, gpu_id, wanted.model_name)


def find_by_token(session: Session, secret: str) -> Node:
    """The node of a token. Raises NotFound."""
    node = nodes.identify_node(session, secret)
    if node is None:
        raise NotFound("This node token is not known.")
    return node


def deregister(session: Session, caller: Identity, secret: str, *, now: datetime) -> int:
    """Take the node with this token out of the network; gives its id. Raises NotFound.

    What waits there goes elsewhere once the caller has announced it.
    """
    node = find_by_token(session, secret)
    if not caller.may_act_for(node.account_id):
        raise NotFound("This node token is not known.")
    nodes.remove_node(session, node, now=now)
    return node.id


def _report(wanted: Registration) -> ReplicaReport:
    """The replica that the registration asks for."""
    engine = wanted.engine or "openai"
    return ReplicaReport(
        model_name=wanted.model_name,
        served_name=wanted.served_name or wanted.model_name,
        engine=engine,
        state=ReplicaState.READY,
        endpoint_url=wanted.endpoint_url,
        concurrency=wanted.concurrency or DEFAULT_CONCURRENCY.get(engine, 8),
        context_tokens=wanted.context_tokens,
        engine_version=wanted.engine_version,
    )


def _served_name(model_name: str, status: EngineStatus) -> str:
    """What the engine calls the model: its own name for its only one, if that differs."""
    if not status.models or model_name in status.models:
        return model_name
    return status.models[0]


def _without_v1(url: str) -> str:
    return url.rstrip("/").removesuffix("/v1")


def _account_id(caller: Identity, user_id: int | None) -> int:
    if user_id is None:
        return caller.account_id
    if not caller.may_act_for(user_id):
        raise Forbidden("`user` must be your own id.")
    return user_id


def _node_for(
    session: Session,
    account: Account,
    wanted: Registration,
    *,
    auto_approve: bool,
    now: datetime,
) -> tuple[Node, str]:
    if wanted.node_token is not None:
        node = find_by_token(session, wanted.node_token)
        if node.account_id != account.id:
            raise NotFound("This node token is not known.")
        return node, wanted.node_token
    new = NewNode(
        name=_node_name(wanted.hardware),
        os_type=wanted.hardware.os_name,
        agent_version="torbiz",
        client_id=_same_endpoint(session, account.id, wanted.endpoint_url),
        inventory=_inventory(wanted.hardware),
    )
    enrolled = enrol_node(session, account, new, now=now, auto_approve=auto_approve)
    return enrolled.node, enrolled.node_token


def _same_endpoint(session: Session, account_id: int, endpoint_url: str | None) -> str | None:
    """The account's node whose engine has this address: it registers again."""
    if endpoint_url is None:
        return None
    return session.scalar(
        sa.select(Node.client_id)
        .join(Replica, Replica.node_id == Node.id)
        .where(Node.account_id == account_id, Replica.endpoint_url == endpoint_url)
        .order_by(Node.id.desc())
        .limit(1)
    )


def _node_name(hardware: Hardware) -> str:
    return (hardware.gpu_info or hardware.cpu_name or "node")[:64]


def _inventory(hardware: Hardware) -> Inventory:
    cores = hardware.cpu_core.strip()
    devices = (DeviceInfo(0, hardware.gpu_info),) if hardware.gpu_info.strip() else ()
    return Inventory(
        devices=devices,
        cpu_name=hardware.cpu_name,
        physical_cores=int(cores) if cores.isascii() and cores.isdigit() else None,
        facts={"os_name": hardware.os_name, "os_version": hardware.os_version},
    )


def _keep_hardware(session: Session, node: Node, given: Hardware, *, now: datetime) -> int:
    row = session.scalar(sa.select(HardwareRecord).where(HardwareRecord.node_id == node.id))
    if row is None:
        row = HardwareRecord(account_id=node.account_id, node_id=node.id, created_at=now)
        session.add(row)
    else:
        update_inventory(session, node, _inventory(given), now=now)
    for name in Hardware.__slots__:
        setattr(row, name, getattr(given, name))
    row.updated_at = now
    session.flush()
    return row.id
