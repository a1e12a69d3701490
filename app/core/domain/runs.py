"""A run: one inference request, from acceptance to its end."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, NamedTuple


class RunState(StrEnum):
    """queued → running → succeeded | failed | cancelled. Only services move it."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in FINAL_STATES


FINAL_STATES = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})


class RunKind(StrEnum):
    """What the engine is asked for."""

    CHAT = "chat"
    COMPLETION = "completion"


class FinishReason(StrEnum):
    """Why generation ended, in the words of the OpenAI API."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    ERROR = "error"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample. None leaves the engine's own default; nothing None is sent."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a caller asks of a model, free of any dialect.

    `messages` (chat) are dicts `{role, content, name?, tool_calls?, tool_call_id?}`;
    `content` is a string, or a list of parts `{type:"text",text}` and
    `{type:"image_url",image_url:{url}}`. `prompt` is for kind `completion`.
    """

    model: str
    kind: RunKind = RunKind.CHAT
    messages: tuple[dict[str, Any], ...] = ()
    prompt: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: Any = None
    response_format: dict[str, Any] | None = None


def request_to_json(request: RunRequest) -> dict[str, Any]:
    """The request as it is stored; what is unset is left out."""
    stored: dict[str, Any] = {
        "model": request.model,
        "kind": request.kind.value,
        "messages": request.messages,
        "prompt": request.prompt,
        "tools": request.tools,
        "tool_choice": request.tool_choice,
        "response_format": request.response_format,
    }
    stored = {name: value for name, value in stored.items() if value}
    given = ((f.name, getattr(request.sampling, f.name)) for f in fields(Sampling))
    stored["sampling"] = {name: value for name, value in given if value not in (None, ())}
    return stored


def request_from_json(stored: dict[str, Any]) -> RunRequest:
    """The request that `request_to_json` stored."""
    sampling = dict(stored.get("sampling", {}))
    sampling["stop"] = tuple(sampling.get("stop", ()))
    return RunRequest(
        model=stored["model"],
        kind=RunKind(stored["kind"]),
        messages=tuple(stored.get("messages", ())),
        prompt=stored.get("prompt", ""),
        sampling=Sampling(**sampling),
        tools=tuple(stored.get("tools", ())),
        tool_choice=stored.get("tool_choice"),
        response_format=stored.get("response_format"),
    )


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a run, as the engine counted them; None where it did not say."""

    input_tokens: int | None = None
    output_tokens: int | None = None


class Chunk(NamedTuple):
    """One piece of a streamed answer, or its end (`finish_reason` set, exactly once, last).

    `tool_calls` are OpenAI deltas: `{index, id?, type?, function:{name?, arguments?}}`.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
