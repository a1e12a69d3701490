"""torbiz: machines that serve models, and which models there are."""

from __future__ import annotations

import msgspec
from flask import Response, current_app

from app.blueprints.torbiz.api import api
from app.blueprints.torbiz.model_schemas import (
    AllModelsQuery,
    Beaten,
    DeregisterBody,
    ModelHeartbeatBody,
    ModelNode,
    ModelNodeBody,
    ModelObject,
)
from app.core.clock import utc_now
from app.core.domain.beats import Beat
from app.core.domain.errors import Forbidden, NotFound
from app.core.outbound import OutboundPolicy
from app.core.sealing import Sealer
from app.core.services import llm_nodes, models
from app.core.services.heartbeats import HeartbeatDoor
from app.core.stream import send_control
from app.web.auth import current_identity
from app.web.context import redis_client, settings
from app.web.transaction import reading, release, unit_of_work
from app.web.validation import json_response


@api.route("POST", "/llm_models/register/", body=ModelNodeBody, answer=ModelNode, status=201)
def register_model(body: ModelNodeBody) -> ModelNode:
    """Register a machine that serves a model, or one more model of a machine."""
    caller = current_identity()
    if body.user is not None and not caller.may_act_for(body.user):
        raise Forbidden("`user` must be your own id.")
    wanted = llm_nodes.Registration(
        model_name=body.model_name.strip(),
        hardware=body.hardware(),
        user_id=body.user,
        endpoint_url=body.endpoint_url,
        engine=body.engine,
        node_token=body.node_token,
    )
    release()  # the engine is asked before anything is written
    wanted = llm_nodes.look_at(wanted, OutboundPolicy(settings().allowed_node_networks))
    with unit_of_work() as session:
        done = llm_nodes.register(
            session, caller, wanted, sealer=Sealer(settings().secret_key),
            auto_approve=settings().auto_approve_providers, now=utc_now(),
        )  # fmt: skip
    return ModelNode(
        node_token=done.node_token,
        node_id=done.node.id,
        client_id=done.node.client_id,
        gpu_id=done.gpu_id,
        model_name=done.model_name,
    )


@api.route("POST", "/llm_models/heartbeat/", body=ModelHeartbeatBody, answer=Beaten, status=201)
def model_heartbeat(body: ModelHeartbeatBody) -> Beaten:
    """Say that a machine is there."""
    door: HeartbeatDoor = current_app.extensions["weft_heartbeats"]
    node = door.tokens.find(body.node_token)
    if node is None:
        raise NotFound("This node token is not known.")
    values = body.model_dump(exclude_none=True, exclude={"node_token", "model_name"})
    door.take(node, msgspec.convert(values, Beat))
    return Beaten(detail="ok")


@api.route("DELETE", "/llm_models/deregister/", body=DeregisterBody, status=204)
def deregister_model(body: DeregisterBody) -> None:
    """Take a machine out of the network. What waits there goes elsewhere."""
    with unit_of_work() as session:
        node_id = llm_nodes.deregister(
            session, current_identity(), body.node_token, now=utc_now()
        )
    door: HeartbeatDoor = current_app.extensions["weft_heartbeats"]
    door.tokens.forget()
    send_control(redis_client(), {"type": "node_gone", "node_id": node_id})


@api.route(
    "GET", "/llm_models/all-models/", query=AllModelsQuery, answer=list[str] | list[ModelObject]
)
def all_models(query: AllModelsQuery) -> Response:
    """Names of the models that are served now; or objects of all that the network knows."""
    now, offline_after = utc_now(), settings().offline_after_seconds
    if (query.format or settings().all_models_format) == "names":
        found = models.list_available(reading(), now=now, offline_after_seconds=offline_after)
        return json_response([model.name for model in found])
    known = models.list_known(reading(), now=now, offline_after_seconds=offline_after)
    return json_response(
        [
            ModelObject(
                model_id=model.name,
                name=model.name,
                description="",
                min_gpu_memory=model.min_gpu_memory_gb,
                is_available=model.is_available,
            ).model_dump()
            for model in known
        ]
    )
