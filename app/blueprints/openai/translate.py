"""OpenAI's shapes, to the domain and back."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from datetime import datetime
from typing import Any

from app.blueprints.openai.schemas import ChatCompletionBody, CompletionBody, Message, Sampled
from app.core.domain.runs import RunKind, RunRequest, RunState, Sampling
from app.core.stream import REASONING, TEXT, TOOLS, Event

_quote = json.encoder.encode_basestring
DONE = b"data: [DONE]\n\n"


def chat_request(body: ChatCompletionBody) -> RunRequest:
    """The run that this chat asks for."""
    return RunRequest(
        model=body.model,
        kind=RunKind.CHAT,
        messages=tuple(_message(found) for found in body.messages),
        sampling=_sampling(body, body.max_completion_tokens or body.max_tokens),
        tools=tuple(body.tools or ()),
        tool_choice=body.tool_choice,
        response_format=body.response_format,
    )


def completion_request(body: CompletionBody) -> RunRequest:
    """The run that this completion asks for."""
    prompt = body.prompt if isinstance(body.prompt, str) else body.prompt[0]
    return RunRequest(
        model=body.model,
        kind=RunKind.COMPLETION,
        prompt=prompt,
        sampling=_sampling(body, body.max_tokens),
    )


def _message(message: Message) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role
    plain: dict[str, Any] = {"role": role, "content": message.content}
    for name in ("name", "tool_calls", "tool_call_id"):
        value = getattr(message, name)
        if value is not None:
            plain[name] = value
    return plain


def _sampling(body: Sampled, max_tokens: int | None) -> Sampling:
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return Sampling(
        max_tokens=max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        seed=body.seed,
        stop=tuple(text for text in stop if text),
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        repetition_penalty=body.repetition_penalty,
    )


class ChatStream:
    """The frames of one streamed chat. What never changes is written once."""

    def __init__(self, uid: str, model: str, created: datetime, *, wants_usage: bool) -> None:
        head = {
            "id": f"chatcmpl-{uid}", "object": "chat.completion.chunk",
            "created": int(created.timestamp()), "model": model,
        }  # fmt: skip
        self._head = json.dumps(head, ensure_ascii=False, separators=(",", ":"))[:-1]
        self._tail = ',"usage":null}\n\n' if wants_usage else "}\n\n"
        self._wants_usage = wants_usage
        self._text_head = f'data: {self._head},"choices":[{{"index":0,"delta":{{"content":'
        self._text_tail = f'}},"logprobs":null,"finish_reason":null}}]{self._tail}'

    def text_frame(self, text: str) -> bytes:
        """The frame of a piece of text."""
        return (self._text_head + _quote(text) + self._text_tail).encode()

    def frames(self, events: Iterator[Event]) -> Generator[bytes, None, None]:
        """Frames as the events come; `[DONE]` ends them. Those of one event go out together."""
        opening = self._delta('{"role":"assistant","content":""}')
        has_tools = False
        for event in events:
            if event.kind == TEXT:
                yield opening + self.text_frame(event.value)
            elif event.kind == REASONING:
                yield opening + self._delta(f'{{"reasoning_content":{_quote(event.value)}}}')
            elif event.kind == TOOLS:
                has_tools = True
                yield opening + self._delta(f'{{"tool_calls":{json.dumps(event.value)}}}')
            elif event.is_end:
                yield opening + b"".join(self._end(event.value, has_tools=has_tools))
            else:
                continue
            opening = b""

    def _delta(self, delta: str, finish_reason: str = "null") -> bytes:
        choice = (
            f'{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish_reason}}}'
        )
        return f'data: {self._head},"choices":[{choice}]{self._tail}'.encode()

    def _end(self, value: dict[str, Any], *, has_tools: bool) -> Iterator[bytes]:
        if value["state"] != RunState.SUCCEEDED:
            error = {"error": stream_error(value)}
            yield f"data: {json.dumps(error, ensure_ascii=False)}\n\n".encode()
            return
        reason = "tool_calls" if has_tools else value["finish_reason"] or "stop"
        yield self._delta("{}", _quote(reason))
        if self._wants_usage:
            usage = json.dumps(usage_object(value["usage"]))
            yield f'data: {self._head},"choices":[],"usage":{usage}}}\n\n'.encode()
        yield DONE


class CompletionStream:
    """The frames of one streamed completion."""

    def __init__(self, uid: str, model: str, created: datetime, *, wants_usage: bool) -> None:
        head = {
            "id": f"cmpl-{uid}", "object": "text_completion",
            "created": int(created.timestamp()), "model": model,
        }  # fmt: skip
        self._head = json.dumps(head, ensure_ascii=False, separators=(",", ":"))[:-1]
        self._tail = ',"usage":null}\n\n' if wants_usage else "}\n\n"
        self._wants_usage = wants_usage

    def text_frame(self, text: str) -> bytes:
        """The frame of a piece of text."""
        return self._piece(text, "null")

    def frames(self, events: Iterator[Event]) -> Generator[bytes, None, None]:
        """Frames as the events come; `[DONE]` ends them."""
        for event in events:
            if event.kind == TEXT:
                yield self.text_frame(event.value)
            elif event.is_end and event.value["state"] != RunState.SUCCEEDED:
                error = {"error": stream_error(event.value)}
                yield f"data: {json.dumps(error, ensure_ascii=False)}\n\n".encode()
                return
            elif event.is_end:
                yield self._piece("", _quote(event.value["finish_reason"] or "stop"))
                if self._wants_usage:
                    usage = json.dumps(usage_object(event.value["usage"]))
                    yield f'data: {self._head},"choices":[],"usage":{usage}}}\n\n'.encode()
                yield DONE

    def _piece(self, text: str, finish_reason: str) -> bytes:
        choice = f'{{"index":0,"text":{_quote(text)},"logprobs":null,"finish_reason":{finish_reason}}}'
        return f'data: {self._head},"choices":[{choice}]{self._tail}'.encode()


def stream_error(value: dict[str, Any]) -> dict[str, Any]:
    """An error inside a stream whose status is 200 already."""
    is_cancelled = value["state"] == RunState.CANCELLED
    message = value.get("error") or ("The run was cancelled." if is_cancelled else "It failed.")
    return {
        "message": message,
        "type": "server_error",
        "param": None,
        "code": value.get("error_code") or value["state"],
    }


def usage_object(usage: dict[str, Any]) -> dict[str, int]:
    """Token counts under OpenAI's names; what the engine did not tell counts as 0."""
    read, written = usage.get("input_tokens") or 0, usage.get("output_tokens") or 0
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


class Gathered:
    """A whole answer, gathered from its events."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self.tool_calls: list[dict[str, Any]] = []
        self.end: dict[str, Any] | None = None

    def add(self, event: Event) -> None:
        """Take one event in."""
        if event.kind == TEXT:
            self._text.append(event.value)
        elif event.kind == REASONING:
            self._reasoning.append(event.value)
        elif event.kind == TOOLS:
            for delta in event.value:
                self._add_tool_call(delta)
        elif event.is_end:
            self.end = event.value

    def _add_tool_call(self, delta: dict[str, Any]) -> None:
        index = delta.get("index") or 0
        if not isinstance(index, int) or not 0 <= index <= 128:
            return
        while len(self.tool_calls) <= index:
            empty = {"name": "", "arguments": ""}
            self.tool_calls.append({"id": "", "type": "function", "function": empty})
        call, function = self.tool_calls[index], delta.get("function") or {}
        call["id"] = delta.get("id") or call["id"]
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        """What the model thought, where it tells."""
        return "".join(self._reasoning)


def chat_completion(
    uid: str, model: str, created: datetime, answer: Gathered
) -> dict[str, Any]:
    """A whole chat answer."""
    end = answer.end or {}
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    reason = end.get("finish_reason") or "stop"
    if answer.tool_calls:
        message["content"] = answer.text or None
        message["tool_calls"] = answer.tool_calls
        reason = "tool_calls"
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
    return {
        "id": f"chatcmpl-{uid}", "object": "chat.completion",
        "created": int(created.timestamp()), "model": model, "choices": [choice],
        "usage": usage_object(end.get("usage") or {}),
    }  # fmt: skip


def completion(uid: str, model: str, created: datetime, answer: Gathered) -> dict[str, Any]:
    """A whole text completion."""
    end = answer.end or {}
    reason = end.get("finish_reason") or "stop"
    choice = {"index": 0, "text": answer.text, "logprobs": None, "finish_reason": reason}
    return {
        "id": f"cmpl-{uid}", "object": "text_completion",
        "created": int(created.timestamp()), "model": model, "choices": [choice],
        "usage": usage_object(end.get("usage") or {}),
    }  # fmt: skip
