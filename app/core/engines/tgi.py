"""Hugging Face's text-generation-inference (TGI), 2.0 to 3.3.

Chats go through its Messages API, which looks like OpenAI's and differs in many places;
plain completions through its own `/generate_stream`. Which library talks to it, and why, is
in docs/adr/0003-which-client-talks-to-tgi.md.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from app.core.domain.runs import Chunk, RunKind, RunRequest, Sampling
from app.core.engines import failures, tgi_native, tgi_probe
from app.core.engines.base import EngineStatus, EngineTarget
from app.core.engines.chat_stream import count, read_chunks
from app.core.engines.http import HttpClient
from app.core.engines.messages import engine_messages, without_markdown_images
from app.core.engines.wire import Wire


class TgiClient:
    """Client of text-generation-inference."""

    kind = "tgi"

    def __init__(self, wire: Wire, http: HttpClient) -> None:
        self._wire = wire
        self._http = http

    def generate(
        self, target: EngineTarget, request: RunRequest
    ) -> Generator[Chunk, None, None]:
        """Stream the answer. See EngineClient."""
        if request.kind is RunKind.COMPLETION:
            body = tgi_native.generate_body(request)
            with self._wire.stream(target, "/generate_stream", body) as events:
                yield from tgi_native.read_chunks(events, request.sampling)
        else:
            with self._wire.stream(
                target, "/v1/chat/completions", chat_body(request)
            ) as events:
                yield from read_chunks(events)

    def check(self, target: EngineTarget) -> EngineStatus:
        """Health and `/info`, whose keys changed between 2.0 and 2.3. See EngineClient."""
        self._wire.get_ok(target, "/health")
        info = self._wire.get_json(target, "/info")
        model = info.get("model_id")
        if not isinstance(model, str) or not 0 < len(model) <= 200:
            raise failures.broke("The engine does not say which model it serves.")
        version = info.get("version")
        return EngineStatus(
            models=(model,),
            max_concurrent_requests=count(info.get("max_concurrent_requests")) or None,
            context_tokens=_context_tokens(info),
            version=failures.clean(version)[:100] if isinstance(version, str) else None,
        )

    def probe(self, target: EngineTarget) -> None:
        """One token through Hugging Face's own client. See EngineClient."""
        tgi_probe.generate_one_token(self._http, target)


def chat_body(request: RunRequest) -> dict[str, Any]:
    """The body of a chat, without what TGI takes for something else or answers 422 to.

    `model` is always "tgi": any other string would name a LoRA adapter. Raises InvalidInput.
    """
    body: dict[str, Any] = {
        "model": "tgi",
        "messages": [_message(message) for message in engine_messages(request.messages)],
        "stream": True,
        "stream_options": {"include_usage": True},
        **_chat_sampling(request.sampling),
    }
    if request.tools and request.tool_choice != "none":
        body["tools"] = list(request.tools)
        if request.tool_choice is not None:
            body["tool_choice"] = request.tool_choice
    grammar = tgi_native.grammar(request.response_format)
    if grammar is not None:
        body["response_format"] = grammar
    return body


def _chat_sampling(sampling: Sampling) -> dict[str, Any]:
    """`presence_penalty` is not what it says here: TGI adds 2 and uses it as a repetition
    penalty. So that is what it carries, and OpenAI's meaning is left out."""
    penalty = sampling.repetition_penalty
    fields = {
        "max_tokens": tgi_native.token_limit(sampling.max_tokens),
        "temperature": sampling.temperature,
        "top_p": tgi_native.top_p(sampling.top_p),
        "seed": tgi_native.seed(sampling.seed),
        "stop": list(sampling.stop) or None,
        "frequency_penalty": sampling.frequency_penalty or None,
        "presence_penalty": None if penalty is None else round(penalty - 2.0, 6),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _message(message: dict[str, Any]) -> dict[str, Any]:
    if message.get("tool_calls"):
        # TGI loses the calls of a message that also has a text.
        return {key: value for key, value in message.items() if key != "content"}
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": without_markdown_images(content)}
    return {**message, "content": [_part(part) for part in content]}


def _part(part: dict[str, Any]) -> dict[str, Any]:
    if part.get("type") == "text" and isinstance(part.get("text"), str):
        return {**part, "text": without_markdown_images(part["text"])}
    return part


def _context_tokens(info: dict[str, Any]) -> int | None:
    """Prompt and answer together, or else what the prompt alone may have."""
    for key in ("max_total_tokens", "max_input_tokens", "max_input_length"):
        tokens = count(info.get(key))
        if tokens:
            return tokens
    return None
