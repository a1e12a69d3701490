"""An OpenAI-like stream of events, read as chunks. All engines but one half of TGI speak it."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

from app.core.domain.errors import DomainError
from app.core.domain.runs import Chunk, FinishReason, Usage
from app.core.engines import failures
from app.core.engines.http import HttpFailure
from app.core.engines.wire import EventStream

# How long usage and `[DONE]` may take once the engine has said why it finished.
_AFTER_FINISH_SECONDS = 5.0

_FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "eos_token": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}
_FAILURES = frozenset({"error", "abort", "cancelled"})


def read_chunks(events: EventStream) -> Generator[Chunk, None, None]:
    """The chunks of a streamed chat or completion; the last alone has a finish reason.

    Raises EngineError when the stream ends before the answer does.
    """
    reader = _Reader()
    try:
        for event in events:
            chunk = reader.read(event)
            if chunk is not None:
                yield chunk
            if reader.finish is not None:
                events.hurry(_AFTER_FINISH_SECONDS)
    except (DomainError, HttpFailure):
        if reader.finish is None:
            raise  # after the finish reason nothing that counts can be lost
    if reader.finish is None and not events.done:
        raise failures.broke("The engine's stream ended before the answer did.")
    yield Chunk(finish_reason=reader.finish_reason(), usage=reader.usage)


def finish_reason(said: str) -> FinishReason:
    """An engine's finish reason in our words. Raises EngineError when it tells of a failure."""
    if said in _FAILURES:
        raise failures.broke(f"The engine ended the answer with {said!r}.")
    return _FINISH_REASONS.get(said, FinishReason.STOP)


def read_usage(value: Any) -> Usage | None:
    """An engine's token counts, None where there are none that make sense."""
    if not isinstance(value, dict):
        return None
    return Usage(
        input_tokens=count(value.get("prompt_tokens")),
        output_tokens=count(value.get("completion_tokens")),
    )


def count(value: Any) -> int | None:
    """A number of tokens or slots as told by an engine, None if it is no such thing."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31:
        return value
    return None


def text_of(value: Any) -> str:
    """Generated text as told by an engine. NUL is dropped: PostgreSQL cannot store it."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise failures.broke("The engine sent a text that is no string.")
    return value.replace("\0", "") if "\0" in value else value


class _Reader:
    """What has been seen of an answer so far."""

    __slots__ = ("finish", "has_tool_calls", "is_empty", "usage")

    def __init__(self) -> None:
        self.finish: FinishReason | None = None
        self.usage: Usage | None = None
        self.has_tool_calls = False
        self.is_empty = True

    def read(self, event: dict[str, Any]) -> Chunk | None:
        usage = event.get("usage")
        if usage is not None:
            self.usage = read_usage(usage) or self.usage
        choices = event.get("choices")
        if not choices:  # the usage event has an empty list
            return None
        try:
            choice = choices[0]
            said = choice.get("finish_reason")
            delta = choice.get("delta")
            chunk = self._text(choice.get("text")) if delta is None else self._delta(delta)
        except (AttributeError, KeyError, TypeError) as error:
            raise failures.broke("The engine sent an event of an unknown shape.") from error
        if said:  # "" until the end in TGI's completions
            self.finish = finish_reason(str(said))
        return chunk

    def finish_reason(self) -> FinishReason:
        """Why it ended. TGI never says so for tool calls, others say `stop` for them."""
        if self.has_tool_calls and self.finish in (None, FinishReason.STOP):
            return FinishReason.TOOL_CALLS
        if self.finish is None and self.is_empty:
            raise failures.broke("The engine ended the answer without a word.")
        return self.finish or FinishReason.STOP

    def _text(self, value: Any) -> Chunk | None:
        text = text_of(value)
        if not text:
            return None
        self.is_empty = False
        return Chunk(text)

    def _delta(self, delta: dict[str, Any]) -> Chunk | None:
        content = delta.get("content")
        if type(content) is str and len(delta) == 1 and content and "\0" not in content:
            self.is_empty = False  # nearly every event of nearly every answer
            return Chunk(content)
        text = text_of(content)
        reasoning = text_of(delta.get("reasoning_content") or delta.get("reasoning"))
        calls = delta.get("tool_calls")
        tool_calls = tuple(_tool_call(call) for call in calls) if calls else ()
        if not (text or reasoning or tool_calls):
            return None
        self.is_empty = False
        if tool_calls:
            self.has_tool_calls = True
        return Chunk(text, reasoning, tool_calls)


def _tool_call(call: dict[str, Any]) -> dict[str, Any]:
    """A tool call's delta with what the OpenAI API defines, and nothing else or null."""
    function = call.get("function") or {}
    wanted: dict[str, Any] = {}
    if isinstance(function.get("name"), str):
        wanted["name"] = function["name"]
    arguments = function.get("arguments")
    if arguments is not None:
        wanted["arguments"] = (
            text_of(arguments) if isinstance(arguments, str) else json.dumps(arguments)
        )
    delta: dict[str, Any] = {"index": count(call.get("index")) or 0}
    if isinstance(call.get("id"), str):
        delta["id"] = call["id"]
        delta["type"] = "function"
    delta["function"] = wanted
    return delta
