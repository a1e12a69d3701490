"""The model catalogue: what nodes may fetch, where each model is, and sending it to a node."""

from __future__ import annotations

from typing import Any

from flask import Response, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import ImmutableMultiDict

from app.blueprints.dashboard.node_presenters import ENGINE_NAMES, REPLICA_TONES, download_row
from app.blueprints.dashboard.pages import blueprint, page, page_or_part, see_other
from app.blueprints.dashboard.presenters import Shown, form_status
from app.core.clock import utc_now
from app.core.domain.errors import DomainError, InvalidInput, NotFound
from app.core.outbound import OutboundPolicy
from app.core.services import catalog, model_rollout, nodes
from app.core.services.catalog import CatalogEntry
from app.core.services.model_rollout import Placed
from app.web.auth import current_identity
from app.web.context import redis_client, settings
from app.web.transaction import reading, unit_of_work

NODES_SHOWN = 500
ENGINES = (
    (6, "llama.cpp"), (7, "TGI"), (2, "vLLM"), (8, "SGLang"), (1, "Ollama"), (3, "TensorRT"),
    (4, "ONNX"), (5, "None"),
)  # fmt: skip
_FORM = ("name", "version", "version_code", "engine_type", "min_gpu_memory_gb", "min_memory_mb",
         "download_url", "checksum", "expected_size")  # fmt: skip
_MAX_INT = 2**31 - 1


@blueprint.get("/models")
def show_models() -> ResponseReturnValue:
    """The catalogue; admins also see what is not active, and everybody's nodes."""
    identity = current_identity()
    entries = catalog.list_versions(reading(), is_active=None if identity.is_admin else True)
    placed = model_rollout.list_placed(
        reading(), redis_client(), account_id=None if identity.is_admin else identity.account_id
    )
    return page_or_part(
        "models", "_models",
        models=[_row(entry, placed.get(entry.name, [])) for entry in entries],
        auto_models=settings().auto_models,
    )  # fmt: skip


def _row(entry: CatalogEntry, placed: list[Placed]) -> dict[str, Any]:
    engine = model_rollout.engine_of(entry)
    return {
        "id": entry.id,
        "name": entry.name,
        "version": entry.version,
        "version_code": entry.version_code,
        "engine": dict(ENGINES).get(entry.engine_type, "Unknown"),
        "size": entry.expected_size,
        "gpu_gb": entry.min_gpu_memory_gb,
        "memory_mb": entry.min_memory_mb,
        "state": Shown("Active", "ok") if entry.is_active else Shown("Not active"),
        "is_active": entry.is_active,
        "can_send": entry.is_active and engine in ENGINE_NAMES,
        "places": [_place(one) for one in placed],
    }


def _place(one: Placed) -> dict[str, Any]:
    state = one.state or "asked for"
    return {
        "node": one.node_name,
        "client_id": one.client_id,
        "href": url_for("dashboard.show_node", client_id=one.client_id),
        "state": state,
        "tone": REPLICA_TONES.get(state, ""),
        "by_hub": one.by_hub,
        "is_wanted": one.is_wanted,
        "download": download_row(one.progress) if one.progress else None,
    }


@blueprint.get("/models/<version_id>/send")
def show_send_model(version_id: str) -> ResponseReturnValue:
    """Choose the node that should serve a model."""
    return _send_page(version_id)


@blueprint.post("/models/<version_id>/send")
def send_model(version_id: str) -> ResponseReturnValue:
    """Want a model on one of the caller's nodes; an admin's, on any."""
    number, identity = _number(version_id), current_identity()
    with unit_of_work() as session:
        node = nodes.get_node(session, identity, request.form.get("client_id", ""))
        model_rollout.send_to_node(
            session, number, node, actor_id=identity.account_id, now=utc_now()
        )
    return see_other("show_models")


@blueprint.post("/models/recall")
def recall_model() -> ResponseReturnValue:
    """Want a model on a node no longer."""
    identity = current_identity()
    with unit_of_work() as session:
        node = nodes.get_node(session, identity, request.form.get("client_id", ""))
        model_rollout.recall_from_node(
            session, request.form.get("model_name", ""), node, actor_id=identity.account_id,
            now=utc_now(),
        )  # fmt: skip
    return see_other("show_models")


def _send_page(version_id: str) -> Response:
    entry = catalog.get_version(reading(), _number(version_id))
    identity = current_identity()
    found, _ = nodes.list_nodes(
        reading(),
        nodes.NodeFilter(account_id=None if identity.is_admin else identity.account_id),
        now=utc_now(), offline_after_seconds=settings().offline_after_seconds,
        page_size=NODES_SHOWN,
    )  # fmt: skip
    options = [(node.client_id, f"{node.name} ({node.owner}, {node.status})") for node in found]
    return page("model_send", model=_row(entry, []), nodes=options)


@blueprint.get("/models/new")
def show_new_model() -> ResponseReturnValue:
    """The form for a new version. Admins only."""
    _admins_only()
    return _form_page({"version_code": "1", "engine_type": "6"})


@blueprint.get("/models/<version_id>/edit")
def show_edit_model(version_id: str) -> ResponseReturnValue:
    """The form for a version that is there. Admins only."""
    _admins_only()
    entry = catalog.get_version(reading(), _number(version_id))
    values = {name: getattr(entry, name) for name in _FORM}
    return _form_page(
        {name: "" if v is None else str(v) for name, v in values.items()}, is_new=False
    )


@blueprint.post("/models")
def save_model() -> ResponseReturnValue:
    """Add a version, or change the one with this name and version. Admins only."""
    _admins_only()
    form = request.form
    try:
        new = _version_of(form)
        with unit_of_work() as session:
            catalog.upsert_version(session, new, now=utc_now())
    except DomainError as error:
        if error.field is None:
            raise
        return _form_page(
            {name: form.get(name, "") for name in _FORM}, status=form_status(error),
            errors={error.field: error.message}, is_new=form.get("is_new") == "1",
        )  # fmt: skip
    return see_other("show_models")


@blueprint.post("/models/<version_id>/active")
def set_model_active(version_id: str) -> ResponseReturnValue:
    """Take a version out of the catalogue or put it back. Admins only."""
    _admins_only()
    with unit_of_work() as session:
        model_rollout.set_active(
            session, _number(version_id), is_active=request.form.get("active") == "1",
            actor_id=current_identity().account_id, now=utc_now(),
        )  # fmt: skip
    return see_other("show_models")


def _form_page(
    values: dict[str, str], *, errors: dict[str, str] | None = None, status: int = 200,
    is_new: bool = True,
) -> Response:  # fmt: skip
    return page(
        "model_form", status=status, form=values, errors=errors or {}, is_new=is_new,
        engines=[(str(number), text) for number, text in ENGINES],
    )  # fmt: skip


def _version_of(form: ImmutableMultiDict[str, str]) -> catalog.NewVersion:
    texts = {name: form.get(name, "").strip() for name in _FORM}
    for name, most in (("name", 100), ("version", 50)):
        if not texts[name] or len(texts[name]) > most:
            raise InvalidInput(f"Fill this in, with {most} characters at most.", field=name)
    checksum = texts["checksum"].lower()
    if checksum and (len(checksum) != 64 or set(checksum) - set("0123456789abcdef")):
        raise InvalidInput("A SHA-256 checksum has 64 hex digits.", field="checksum")
    url = texts["download_url"]
    if url:
        _check_url(url)
        if not checksum:
            raise InvalidInput("A file that nodes fetch needs its checksum.", field="checksum")
    engine = _whole(texts, "engine_type", 8) or 0
    if engine not in catalog.ENGINE_TYPES:
        raise InvalidInput("Choose an engine.", field="engine_type")
    code = _whole(texts, "version_code", _MAX_INT)
    if code is None:
        raise InvalidInput("Give the version a number.", field="version_code")
    return catalog.NewVersion(
        name=texts["name"], version=texts["version"], version_code=code, engine_type=engine,
        min_memory_mb=_whole(texts, "min_memory_mb", _MAX_INT),
        min_gpu_memory_gb=_whole(texts, "min_gpu_memory_gb", 100_000),
        download_url=url or None, checksum=checksum or None,
        expected_size=_whole(texts, "expected_size", 2**53),
    )  # fmt: skip


def _check_url(url: str) -> None:
    if len(url) > 1000:
        raise InvalidInput("This address is too long.", field="download_url")
    try:
        OutboundPolicy(settings().allowed_node_networks).check_url(url)
    except InvalidInput as error:
        raise InvalidInput(error.message, field="download_url") from None


def _whole(texts: dict[str, str], field: str, most: int) -> int | None:
    text = texts[field]
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 18 or int(text) > most:
        raise InvalidInput("Give a whole number.", field=field)
    return int(text)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise NotFound("The catalogue has no such version.")
    return int(text)


def _admins_only() -> None:
    if not current_identity().is_admin:
        raise NotFound("There is nothing here.")
