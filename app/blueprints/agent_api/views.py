"""The doors that agents knock at."""

from __future__ import annotations

import msgspec
from flask import current_app

from app.blueprints.agent_api import schemas, translate
from app.blueprints.agent_api.api import api, blueprint
from app.blueprints.agent_api.guard import bearer_secret, current_node, guard
from app.core.clock import utc_now
from app.core.domain.beats import Beat
from app.core.domain.errors import InvalidInput
from app.core.domain.nodes import is_draining
from app.core.outbound import OutboundPolicy
from app.core.sealing import Sealer
from app.core.services import desired, enrolment, node_reports, nodes, replicas
from app.core.services.heartbeats import HeartbeatDoor
from app.core.services.inventory import update_inventory
from app.core.stream import send_control
from app.web.context import redis_client, settings
from app.web.transaction import reading, unit_of_work

blueprint.before_request(guard)


@api.route(
    "POST", "/agent/v1/enrol", body=schemas.EnrolBody, answer=schemas.Enrolment, status=201
)
def enrol(body: schemas.EnrolBody) -> schemas.Enrolment:
    """Join the network with an enrolment token; the same machine comes back as the same node."""
    new = enrolment.NewNode(
        name=body.name,
        os_type=body.os_type,
        agent_version=body.agent_version,
        client_id=body.client_id,
        inventory=translate.inventory_of(body.inventory) if body.inventory else None,
    )
    secret = bearer_secret()
    with unit_of_work() as session:
        enrolled = enrolment.enrol_with_token(
            session, secret, new,
            now=utc_now(), auto_approve=settings().auto_approve_providers,
        )  # fmt: skip
    node = enrolled.node
    return schemas.Enrolment(
        node_id=node.id,
        client_id=node.client_id,
        node_token=enrolled.node_token,
        heartbeat_seconds=settings().heartbeat_seconds,
        name=node.name,
    )


@api.route("PUT", "/agent/v1/inventory", body=schemas.InventoryBody, status=204)
def put_inventory(body: schemas.InventoryBody) -> None:
    """Tell what the machine has."""
    with unit_of_work() as session:
        update_inventory(
            session, current_node(), translate.inventory_of(body.inventory), now=utc_now()
        )


@api.route(
    "POST", "/agent/v1/heartbeat", body=schemas.HeartbeatBody, answer=schemas.HeartbeatAnswer
)
def heartbeat(body: schemas.HeartbeatBody) -> schemas.HeartbeatAnswer:
    """Say that the machine is there. Good beats are answered before they get here."""
    try:
        beat = msgspec.convert(body.model_dump(exclude_none=True), Beat)
    except msgspec.ValidationError as error:
        raise InvalidInput(str(error)) from None
    node = current_node()
    door: HeartbeatDoor = current_app.extensions["weft_heartbeats"]
    known = door.tokens.find(bearer_secret())
    if known is None:
        door.put(node.id, beat)
    else:
        door.take(known, beat)
    return schemas.HeartbeatAnswer(
        ok=True,
        desired_revision=node.desired_revision,
        draining=is_draining(node.wanted_status),
    )


@api.route("PUT", "/agent/v1/replicas", body=schemas.ReplicasBody, answer=schemas.Verdicts)
def put_replicas(body: schemas.ReplicasBody) -> schemas.Verdicts:
    """Tell what the machine serves: the full list, each time."""
    with unit_of_work() as session:
        verdicts = replicas.report_replicas(
            session, current_node(), [translate.replica_of(entry) for entry in body.replicas],
            policy=OutboundPolicy(settings().allowed_node_networks),
            sealer=Sealer(settings().secret_key), now=utc_now(),
        )  # fmt: skip
    return schemas.Verdicts(
        replicas=[
            schemas.Verdict(model_name=v.model_name, accepted=v.accepted, reason=v.reason)
            for v in verdicts
        ]
    )


@api.route("GET", "/agent/v1/desired", answer=schemas.DesiredState)
def get_desired() -> schemas.DesiredState:
    """What the hub wants of the machine."""
    return translate.desired_of(desired.desired_state(reading(), current_node()))


@api.route("POST", "/agent/v1/downloads", body=schemas.DownloadsBody, status=204)
def post_downloads(body: schemas.DownloadsBody) -> None:
    """Tell how far downloads have got."""
    node_reports.keep_downloads(
        redis_client(), current_node().id,
        [node_reports.Progress(**entry.model_dump(exclude={"id"})) for entry in body.downloads],
        now=utc_now(),
    )  # fmt: skip


@api.route("POST", "/agent/v1/logs", body=schemas.LogsBody, status=204)
def post_logs(body: schemas.LogsBody) -> None:
    """Hand in lines of a log."""
    node_reports.keep_logs(
        redis_client(), current_node().id, source=body.source, model_name=body.model_name,
        lines=[
            node_reports.LogLine(at=line.at, level=line.level, message=line.message)
            for line in body.lines
        ],
    )  # fmt: skip


@api.route("POST", "/agent/v1/goodbye", body=schemas.GoodbyeBody, status=204)
def goodbye(body: schemas.GoodbyeBody) -> None:
    """Stop cleanly: offline at once, and what waits here goes elsewhere."""
    node = current_node()
    with unit_of_work() as session:
        nodes.say_goodbye(session, node, now=utc_now())
    send_control(redis_client(), {"type": "node_gone", "node_id": node.id})
