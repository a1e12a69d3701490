"""What engines of each kind say of themselves: their kind, limits, load and health."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from agent.engine_http import EngineUnreachable, fetch
from agent.launchers.base import EngineFacts, EngineLoad

# Requests at once where the engine doesn't say.
_CONCURRENCY = {"tgi": 128, "vllm": 64, "sglang": 64, "llamacpp": 4, "ollama": 4, "openai": 8}

_HEALTH_PATHS = {"ollama": "/api/version", "openai": "/v1/models"}

# Prometheus names of (running, waiting).
_LOAD_SERIES = {
    "tgi": ("tgi_batch_current_size", "tgi_queue_size"),
    "llamacpp": ("llamacpp:requests_processing", "llamacpp:requests_deferred"),
    "vllm": ("vllm:num_requests_running", "vllm:num_requests_waiting"),
    "sglang": ("sglang:num_running_reqs", "sglang:num_queue_reqs"),
}
# TGI writes a series on its first use only, so there absent means none.
_ABSENT_IS_ZERO = {"tgi"}


# Questions that only one kind of engine answers like this, in the order to ask them.
_SIGNS: tuple[tuple[str, str, Callable[[dict[str, Any]], bool]], ...] = (
    ("/info", "tgi", lambda told: "max_concurrent_requests" in told or "model_sha" in told),
    ("/props", "llamacpp", lambda told: "default_generation_settings" in told),
    ("/get_server_info", "sglang", lambda told: "version" in told),
    ("/api/version", "ollama", lambda told: "version" in told),
    ("/version", "vllm", lambda told: "version" in told),
)


def detect_kind(base_url: str, api_key: str | None = None) -> str:
    """Which kind of engine listens there. Raises EngineUnreachable when nobody answers."""
    listed = fetch(base_url, "/v1/models", api_key=api_key).json()
    entries = _entries(listed)
    owners = {str(entry.get("owned_by", "")).lower() for entry in entries}
    for kind in ("vllm", "sglang"):
        if kind in owners:
            return kind
    for path, kind, is_its in _SIGNS:
        told = fetch(base_url, path, api_key=api_key).json()
        if isinstance(told, dict) and is_its(told):
            return kind
    return "openai"


def is_healthy(kind: str, base_url: str, api_key: str | None = None) -> str | None:
    """None when the engine is well, else what is wrong. Raises EngineUnreachable."""
    answer = fetch(base_url, _HEALTH_PATHS.get(kind, "/health"), api_key=api_key)
    if answer.status == 200:
        return None
    if answer.status in {401, 403}:
        return f"{base_url} refuses the API key (status {answer.status})."
    return f"{base_url} says it isn't well (status {answer.status})."


def read_facts(
    kind: str, base_url: str, *, api_key: str | None, model_name: str, served_name: str | None
) -> EngineFacts:
    """What the engine serves and how much of it. Raises EngineUnreachable."""

    def ask(path: str) -> Any:
        return fetch(base_url, path, api_key=api_key).json()

    entries = _entries(ask("/v1/models"))
    served = served_name or _served_name(entries, model_name)
    reader = _READERS.get(kind, _read_openai)
    concurrency, context, version = reader(ask, _entry(entries, served))
    return EngineFacts(
        served_name=served,
        concurrency=concurrency or _CONCURRENCY[kind],
        context_tokens=context,
        version=version,
    )


def read_load(kind: str, base_url: str, *, api_key: str | None) -> EngineLoad:
    """How busy the engine is; nothing known where it doesn't count or doesn't answer."""
    series = _LOAD_SERIES.get(kind)
    if series is None:
        return EngineLoad()
    try:
        answer = fetch(base_url, "/metrics", api_key=api_key, timeout=2.0)
    except EngineUnreachable:
        return EngineLoad()
    if answer.status != 200:
        return EngineLoad()
    text = answer.body.decode("utf-8", "replace")
    running, waiting = (_series(text, name) for name in series)
    if kind in _ABSENT_IS_ZERO:
        running, waiting = running or 0, waiting or 0
    return EngineLoad(running=running, waiting=waiting)


def _series(text: str, name: str) -> int | None:
    """The sum of a metric over its labels."""
    found = re.findall(
        rf"^{re.escape(name)}(?:\{{[^}}]*\}})?\s+([0-9.eE+-]+)", text, re.MULTILINE
    )
    try:
        return int(sum(float(value) for value in found)) if found else None
    except (ValueError, OverflowError):
        return None


def _entries(listed: Any) -> list[dict[str, Any]]:
    data = listed.get("data") if isinstance(listed, dict) else None
    return [entry for entry in data or [] if isinstance(entry, dict) and entry.get("id")]


def _served_name(entries: list[dict[str, Any]], model_name: str) -> str:
    """The engine's own id: the network's name where it knows that, else its only model's."""
    ids = [str(entry["id"]) for entry in entries]
    if model_name in ids or len(ids) != 1:
        return model_name
    return ids[0]


def _entry(entries: list[dict[str, Any]], served: str) -> dict[str, Any]:
    return next((entry for entry in entries if entry["id"] == served), {})


_Ask = Callable[[str], Any]
_Read = tuple[int | None, int | None, str | None]


def _read_tgi(ask: _Ask, entry: dict[str, Any]) -> _Read:
    info = ask("/info") or {}
    return (
        _whole(info.get("max_concurrent_requests")),
        _whole(info.get("max_total_tokens")),
        _words(info.get("version")),
    )


def _read_llamacpp(ask: _Ask, entry: dict[str, Any]) -> _Read:
    props = ask("/props") or {}
    defaults = props.get("default_generation_settings") or {}
    return (
        _whole(props.get("total_slots")),
        _whole(defaults.get("n_ctx")),
        _build(props.get("build_info")),
    )


def _read_vllm(ask: _Ask, entry: dict[str, Any]) -> _Read:
    version = (ask("/version") or {}).get("version")
    return None, _whole(entry.get("max_model_len")), _words(version)


def _read_sglang(ask: _Ask, entry: dict[str, Any]) -> _Read:
    info = ask("/get_server_info") or {}
    context = _whole(info.get("context_length")) or _whole(entry.get("max_model_len"))
    return _whole(info.get("max_running_requests")), context, _words(info.get("version"))


def _read_ollama(ask: _Ask, entry: dict[str, Any]) -> _Read:
    return None, None, _words((ask("/api/version") or {}).get("version"))


def _read_openai(ask: _Ask, entry: dict[str, Any]) -> _Read:
    return None, _whole(entry.get("max_model_len")), None


_READERS: dict[str, Callable[[_Ask, dict[str, Any]], _Read]] = {
    "tgi": _read_tgi,
    "llamacpp": _read_llamacpp,
    "vllm": _read_vllm,
    "sglang": _read_sglang,
    "ollama": _read_ollama,
    "openai": _read_openai,
}


def _whole(value: Any) -> int | None:
    return (
        value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
    )


def _words(value: Any) -> str | None:
    return str(value)[:100] if value else None


def _build(value: Any) -> str | None:
    """llama.cpp's build; one that was made outside its repository calls itself `b0-unknown`."""
    build = _words(value)
    return None if build == "b0-unknown" else build
