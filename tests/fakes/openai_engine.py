"""An engine that speaks the OpenAI API, in the ways of vLLM, llama.cpp, Ollama and others."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.faults import (
    AFTER_TEXT,
    BEFORE_HEADER,
    Fault,
    fail_before_header,
    fail_in_stream,
)
from tests.fakes.http_server import Exchange, FakeServer, compact

MODEL = "smollm2-135m-instruct"
CONTEXT = 4096


@dataclass
class OpenAIEngine:
    """How this engine behaves. `flavour` is a kind: vllm, sglang, llamacpp, ollama, openai."""

    flavour: str = "openai"
    tokens: tuple[str, ...] = ("Hel", "lo", " world")
    finish_reason: str | None = "stop"
    fault: Fault | None = None
    error: str | None = None  # overloaded, validation, generation, incomplete
    error_after: int = 0  # tokens before an error inside the stream
    status: int | None = None  # answer generations with this HTTP status
    error_body: bytes = b""
    error_headers: dict[str, str] = field(default_factory=dict)
    api_key: str | None = None
    reasoning: tuple[str, ...] = ()
    reasoning_key: str = "reasoning_content"
    tool_deltas: tuple[dict[str, Any], ...] = ()
    sends_done: bool = True
    sends_usage: bool = True
    healthy: bool = True
    has_chat_template: bool = True
    keep_alive_comments: int = 0
    keep_alive_seconds: float = 0.0
    token_seconds: float = 0.0  # between two tokens
    data_space: bool = True
    split_bytes: bool = False
    hangs_after_first: bool = False
    hangs_after_finish: bool = False
    input_length: int = 7
    total_slots: int = 4
    build: str = "b11549-abc"
    missing_paths: frozenset[str] = field(default_factory=frozenset)

    def handle(self, exchange: Exchange) -> None:
        request = exchange.request
        key = request.headers.get("authorization")
        if request.path in self.missing_paths:
            exchange.respond(404)
        elif request.path == "/health":
            self._health(exchange)
        elif self.api_key and key != f"Bearer {self.api_key}":
            exchange.respond_json(401, self._error_body(401, "Invalid API Key"))
        elif request.method == "GET":
            self._get(exchange, request.path)
        elif self.fault in BEFORE_HEADER:
            fail_before_header(exchange, self.fault)
        else:
            self._post(exchange, request.path)

    def _health(self, exchange: Exchange) -> None:
        if self.flavour in ("ollama", "openai"):
            exchange.respond(404)
        elif self.healthy:
            exchange.respond(200, b'{"status":"ok"}' if self.flavour == "llamacpp" else b"")
        else:
            exchange.respond_json(503, self._error_body(503, "Loading model"))

    def _get(self, exchange: Exchange, path: str) -> None:
        own = {
            "vllm": {"/version": {"version": "0.19.1"}},
            "sglang": {"/get_server_info": {"version": "0.5.9", "max_running_requests": 64}},
            "llamacpp": {
                "/props": {
                    "total_slots": self.total_slots,
                    "default_generation_settings": {"n_ctx": CONTEXT},
                    "build_info": self.build,
                }
            },
            "ollama": {"/api/version": {"version": "0.22.0"}},
        }.get(self.flavour, {})
        if path == "/v1/models":
            entry: dict[str, Any] = {"id": MODEL, "object": "model", "created": 0}
            if self.flavour in ("vllm", "sglang"):
                entry["max_model_len"] = CONTEXT
            exchange.respond_json(200, {"object": "list", "data": [entry]})
        elif path in own:
            exchange.respond_json(200, own[path])
        else:
            exchange.respond(404)

    def _post(self, exchange: Exchange, path: str) -> None:
        body = exchange.request.json
        is_chat = path == "/v1/chat/completions"
        if not is_chat and path != "/v1/completions":
            exchange.respond(404)
        elif self.status is not None:
            exchange.respond(self.status, self.error_body, headers=self.error_headers)
        elif is_chat and not self.has_chat_template:
            exchange.respond_json(400, self._error_body(400, "no chat template"))
        else:
            refusal = self._refusal(json.dumps(body.get("messages", body.get("prompt"))))
            if refusal and not self.error_after:
                exchange.respond_json(refusal[0], self._error_body(*refusal))
            else:
                self._stream(exchange, body, is_chat=is_chat, refusal=refusal)

    def _refusal(self, prompt: str) -> tuple[int, str] | None:
        words = len(prompt.split())
        if words > CONTEXT:
            return 400, {
                "vllm": f"This model's maximum context length is {CONTEXT} tokens. However, you "
                f"requested {words} tokens in the messages.",
                "sglang": f"The input ({words} tokens) is longer than the model's context length "
                f"({CONTEXT} tokens).",
                "llamacpp": f"request ({words} tokens) exceeds the available context size "
                f"({CONTEXT} tokens), try increasing it",
                "ollama": "the input length exceeds the context length",
            }.get(self.flavour, f"This model's maximum context length is {CONTEXT} tokens.")
        return {
            "overloaded": (503 if self.flavour == "llamacpp" else 429, "the queue is full"),
            "validation": (400, "temperature must be non-negative, got -1"),
            "generation": (500, "the engine core died"),
            "incomplete": (500, "the answer was cut"),
        }.get(self.error or "")

    def _error_body(self, code: int, message: str) -> dict[str, Any]:
        if self.flavour == "ollama":
            return {"error": message}
        if self.flavour == "llamacpp":
            too_long = "exceeds the available context" in message
            kind = "exceed_context_size_error" if too_long else "invalid_request_error"
            kind = kind if code < 500 else "server_error"
            return {"error": {"code": code, "message": message, "type": kind}}
        if self.flavour == "sglang":
            return {"object": "error", "message": message, "type": "BadRequest", "code": code}
        return {"error": {"message": message, "type": "BadRequestError", "code": code}}

    def _data(self, exchange: Exchange, payload: bytes) -> None:
        line = (b"data: " if self.data_space else b"data:") + payload + b"\n\n"
        step = 7 if self.split_bytes else len(line)
        for start in range(0, len(line), step):
            exchange.chunk(line[start : start + step])

    def _stream(
        self,
        exchange: Exchange,
        body: dict[str, Any],
        *,
        is_chat: bool,
        refusal: tuple[int, str] | None,
    ) -> None:
        exchange.start_stream()
        for _ in range(self.keep_alive_comments):
            exchange.wait(self.keep_alive_seconds)
            exchange.chunk(b": waiting\n\n")
        if is_chat:
            self._event(exchange, is_chat, {"role": "assistant", "content": None})
        for piece in self.reasoning:
            self._event(exchange, is_chat, {self.reasoning_key: piece})
        for delta in self.tool_deltas:
            self._event(exchange, is_chat, {"tool_calls": [delta]})
        tokens = self.tokens[: body.get("max_tokens")]
        for index, text in enumerate(tokens, start=1):
            if refusal and index > self.error_after:
                self._data(exchange, compact({"error": refusal[1]}))
                exchange.end_stream()
                return
            if self.fault and index == (2 if self.fault in AFTER_TEXT else 1):
                fail_in_stream(exchange, self.fault)
                return
            self._token(exchange, is_chat, text, is_first=index == 1)
        finish = self.finish_reason if len(tokens) == len(self.tokens) else "length"
        self._event(exchange, is_chat, {}, finish)
        if self.hangs_after_finish:
            exchange.hang()
        self._end(exchange, body, len(tokens))

    def _token(self, exchange: Exchange, is_chat: bool, text: str, *, is_first: bool) -> None:
        if self.token_seconds and not is_first:
            exchange.wait(self.token_seconds)
        self._event(exchange, is_chat, {"content": text})
        if self.hangs_after_first:
            exchange.hang()

    def _end(self, exchange: Exchange, body: dict[str, Any], count: int) -> None:
        if self.sends_usage and body.get("stream_options", {}).get("include_usage"):
            usage = {"prompt_tokens": self.input_length, "completion_tokens": count}
            self._data(exchange, compact({"object": "chunk", "choices": [], "usage": usage}))
        if self.sends_done:
            self._data(exchange, b"[DONE]")
        exchange.end_stream()

    def _event(
        self,
        exchange: Exchange,
        is_chat: bool,
        delta: dict[str, Any],
        finish: str | None = None,
    ) -> None:
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
        if is_chat:
            choice["delta"] = delta
        else:
            choice["text"] = delta.get("content") or ""
        self._data(exchange, compact({"id": "c-1", "model": MODEL, "choices": [choice]}))


def serve(engine: OpenAIEngine) -> FakeServer:
    """A server that behaves as `engine` says at each moment."""
    return FakeServer(engine.handle)
