"""torbiz's GPU list: machines as their owners describe them."""

from __future__ import annotations

from flask import Response

from app.blueprints.torbiz.api import api
from app.blueprints.torbiz.gpu_schemas import Gpu, GpuBody, GpuPage, GpuPatch
from app.core.clock import utc_now
from app.core.domain.accounts import Identity
from app.core.domain.errors import Forbidden, InvalidInput, NotFound
from app.core.services import accounts, hardware
from app.core.services.hardware import HardwareInfo
from app.web.auth import current_identity
from app.web.transaction import reading, unit_of_work
from app.web.validation import json_response


@api.route("GET", "/gpu/list/", query=GpuPage, answer=list[Gpu])
def list_gpus(query: GpuPage) -> Response:
    """The caller's machines; for an admin, everybody's."""
    found, total = hardware.list_hardware(
        reading(), current_identity(),
        limit=query.page_size, offset=(query.page - 1) * query.page_size,
    )  # fmt: skip
    response = json_response([_gpu(info).model_dump() for info in found])
    response.headers["X-Total-Count"] = str(total)
    return response


@api.route("POST", "/gpu/list/", body=GpuBody, answer=Gpu, status=201)
def create_gpu(body: GpuBody) -> Gpu:
    """Describe a machine of the caller's; an admin's may be anybody's."""
    _check_owner(current_identity(), body.user)
    with unit_of_work() as session:
        _check_exists(body.user)
        record = hardware.add_hardware(session, body.user, body.description(), now=utc_now())
        info = hardware.info_of(record)
    return _gpu(info)


@api.route("GET", "/gpu/list/<int:gpu_id>/", answer=Gpu)
def show_gpu(gpu_id: int) -> Gpu:
    """One machine."""
    return _gpu(hardware.info_of(hardware.get_hardware(reading(), current_identity(), gpu_id)))


@api.route("PUT", "/gpu/list/<int:gpu_id>/", body=GpuBody, answer=Gpu)
def replace_gpu(gpu_id: int, body: GpuBody) -> Gpu:
    """Describe a machine anew."""
    return _change(gpu_id, body)


@api.route("PATCH", "/gpu/list/<int:gpu_id>/", body=GpuPatch, answer=Gpu)
def change_gpu(gpu_id: int, body: GpuPatch) -> Gpu:
    """Change what is sent of a description."""
    return _change(gpu_id, body)


@api.route("DELETE", "/gpu/list/<int:gpu_id>/", status=204)
def delete_gpu(gpu_id: int) -> None:
    """Remove a machine, and the node that it was registered as."""
    with unit_of_work() as session:
        record = hardware.get_hardware(session, current_identity(), gpu_id)
        hardware.remove_hardware(session, record, now=utc_now())


def _change(gpu_id: int, body: GpuBody | GpuPatch) -> Gpu:
    caller = current_identity()
    with unit_of_work() as session:
        record = hardware.get_hardware(session, caller, gpu_id)
        if body.user is not None and body.user != record.account_id:
            _check_owner(caller, body.user)
            raise InvalidInput("A machine keeps its owner.", field="user")
        hardware.change_hardware(session, record, body.description(), now=utc_now())
        info = hardware.info_of(record)
    return _gpu(info)


def _check_owner(caller: Identity, user: int) -> None:
    if not caller.may_act_for(user):
        raise Forbidden("`user` must be your own id.")


def _check_exists(user: int) -> None:
    try:
        accounts.get_account(reading(), user)
    except NotFound:
        raise InvalidInput(
            f'Invalid pk "{user}" - object does not exist.', field="user"
        ) from None


def _gpu(info: HardwareInfo) -> Gpu:
    return Gpu(id=info.id, user=info.account_id, **info.description)
