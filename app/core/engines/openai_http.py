"""The engines that speak the OpenAI API: vLLM, SGLang, llama.cpp, Ollama and all others.

They differ in which sampling fields they take and in how they tell about themselves; both
differences are tables here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from app.core.domain.errors import EngineError, EngineRejected
from app.core.domain.runs import Chunk, RunKind, RunRequest, Sampling
from app.core.engines import failures
from app.core.engines.base import EngineStatus, EngineTarget
from app.core.engines.chat_stream import count, read_chunks
from app.core.engines.messages import engine_messages
from app.core.engines.wire import Wire

MAX_MODELS = 200


@dataclass(frozen=True, slots=True)
class Kind:
    """What sets one kind apart: names of its extra sampling fields, and its check."""

    name: str
    top_k: str | None
    repetition_penalty: str | None
    takes_completion_format: bool
    describe: Callable[[Wire, EngineTarget], EngineStatus]


class OpenAIHttpClient:
    """Client of one kind of OpenAI-compatible engine."""

    def __init__(self, kind: Kind, wire: Wire) -> None:
        self.kind = kind.name
        self._kind = kind
        self._wire = wire

    def generate(
        self, target: EngineTarget, request: RunRequest
    ) -> Generator[Chunk, None, None]:
        """Stream the answer. See EngineClient."""
        path, body = self._call(target, request)
        with self._wire.stream(target, path, body) as events:
            yield from read_chunks(events)

    def check(self, target: EngineTarget) -> EngineStatus:
        """Health, models, and what this kind tells of its limits. See EngineClient."""
        return self._kind.describe(self._wire, target)

    def probe(self, target: EngineTarget) -> None:
        """Generate one token, by chat, or by completion where there is no chat template."""
        sampling = Sampling(max_tokens=1)
        hello = ({"role": "user", "content": "Hi"},)
        chat = RunRequest(target.served_name, messages=hello, sampling=sampling)
        completion = RunRequest(
            target.served_name, kind=RunKind.COMPLETION, prompt="Hi", sampling=sampling
        )
        try:
            self._consume(target, chat)
        except EngineRejected:
            self._consume(target, completion)

    def _consume(self, target: EngineTarget, request: RunRequest) -> None:
        with closing(self.generate(target, request)) as chunks:
            for _ in chunks:
                pass

    def _call(self, target: EngineTarget, request: RunRequest) -> tuple[str, dict[str, Any]]:
        body: dict[str, Any] = {
            "model": target.served_name,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._sampling(request.sampling),
        }
        if request.kind is RunKind.COMPLETION:
            body["prompt"] = request.prompt
            if request.response_format and self._kind.takes_completion_format:
                body["response_format"] = request.response_format
            return "/v1/completions", body
        body["messages"] = engine_messages(request.messages)
        if request.tools:
            body["tools"] = list(request.tools)
            if request.tool_choice is not None:
                body["tool_choice"] = request.tool_choice
        if request.response_format:
            body["response_format"] = request.response_format
        return "/v1/chat/completions", body

    def _sampling(self, sampling: Sampling) -> dict[str, Any]:
        fields = {
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            "stop": list(sampling.stop) or None,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
        }
        if self._kind.top_k:
            fields[self._kind.top_k] = sampling.top_k
        if self._kind.repetition_penalty:
            fields[self._kind.repetition_penalty] = sampling.repetition_penalty
        return {name: value for name, value in fields.items() if value is not None}


def _describe_any(wire: Wire, target: EngineTarget) -> EngineStatus:
    entries = _models(wire, target)
    return EngineStatus(models=_names(entries))


def _describe_vllm(wire: Wire, target: EngineTarget) -> EngineStatus:
    wire.get_ok(target, "/health")
    entries = _models(wire, target)
    return EngineStatus(
        models=_names(entries),
        context_tokens=_context(entries, target, "max_model_len"),
        version=_word(_get_if_there(wire, target, "/version").get("version")),
    )


def _describe_sglang(wire: Wire, target: EngineTarget) -> EngineStatus:
    wire.get_ok(target, "/health")
    entries = _models(wire, target)
    info = _get_if_there(wire, target, "/get_server_info")
    return EngineStatus(
        models=_names(entries),
        max_concurrent_requests=count(info.get("max_running_requests")) or None,
        context_tokens=_context(entries, target, "max_model_len"),
        version=_word(info.get("version")),
    )


def _describe_llamacpp(wire: Wire, target: EngineTarget) -> EngineStatus:
    wire.get_ok(target, "/health")
    entries = _models(wire, target)
    props = _get_if_there(wire, target, "/props")  # may be switched off
    defaults = props.get("default_generation_settings")
    slot_context = count(defaults.get("n_ctx")) if isinstance(defaults, dict) else None
    return EngineStatus(
        models=_names(entries),
        max_concurrent_requests=count(props.get("total_slots")) or None,
        context_tokens=slot_context or None,
        version=_word(props.get("build_info")),
    )


def _describe_ollama(wire: Wire, target: EngineTarget) -> EngineStatus:
    version = wire.get_json(target, "/api/version").get("version")
    return EngineStatus(models=_names(_models(wire, target)), version=_word(version))


KINDS = (
    Kind("vllm", "top_k", "repetition_penalty", True, _describe_vllm),
    Kind("sglang", "top_k", "repetition_penalty", True, _describe_sglang),
    Kind("llamacpp", "top_k", "repeat_penalty", True, _describe_llamacpp),
    # Ollama's OpenAI door has neither field; its own API does, in another protocol.
    Kind("ollama", None, None, False, _describe_ollama),
    Kind("openai", None, None, False, _describe_any),
)


def _models(wire: Wire, target: EngineTarget) -> list[dict[str, Any]]:
    data = wire.get_json(target, "/v1/models").get("data")
    if not isinstance(data, list):
        raise failures.broke("The engine's list of models is no list.")
    return [entry for entry in data[:MAX_MODELS] if isinstance(entry, dict)]


def _names(entries: list[dict[str, Any]]) -> tuple[str, ...]:
    names = (entry.get("id") for entry in entries)
    return tuple(name for name in names if isinstance(name, str) and 0 < len(name) <= 200)


def _context(entries: list[dict[str, Any]], target: EngineTarget, key: str) -> int | None:
    """The served model's context, or the only model's."""
    for entry in entries:
        if entry.get("id") == target.served_name or len(entries) == 1:
            return count(entry.get(key)) or None
    return None


def _get_if_there(wire: Wire, target: EngineTarget, path: str) -> dict[str, Any]:
    """What an engine says at a path that not all versions have; {} where it is missing."""
    try:
        return wire.get_json(target, path)
    except EngineError as error:
        if error.reason in ("engine_unreachable", "engine_timeout"):
            raise
        return {}


def _word(value: Any) -> str | None:
    return failures.clean(value)[:100] if isinstance(value, str) and value else None
