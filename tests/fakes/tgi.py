"""A text-generation-inference server, as its wire contract says, without a model.

Chats and completions are answered with `tokens`. Tool-call streams and other recorded
answers come from `samples/`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.faults import (
    AFTER_TEXT,
    BEFORE_HEADER,
    Fault,
    fail_before_header,
    fail_in_stream,
)
from tests.fakes.http_server import Exchange, FakeServer, compact

SAMPLES = Path(__file__).parent / "samples"
MODEL = "meta-llama/Llama-3.1-8B-Instruct"
# Keys that TGI's parser refuses to have as null.
NOT_NULL = ("stop", "details", "stream", "stream_options", "parameters", "return_full_text")


def sample(name: str) -> Any:
    """A recorded answer of TGI."""
    return json.loads((SAMPLES / f"{name}.json").read_text("utf-8"))


@dataclass
class Tgi:
    """How this TGI behaves. Change it between requests as a test needs."""

    tokens: tuple[str, ...] = ("Hel", "lo", " world")
    finish_reason: str = "eos_token"
    input_length: int = 7
    fault: Fault | None = None
    error: str | None = None  # overloaded, validation, generation, incomplete
    error_after: int = 0  # tokens before a generation error
    api_key: str | None = None
    data_space: bool = True  # TGI before 2.1.0 wrote no space
    nested_errors: bool = True  # TGI before 2.4.1 wrote flat errors in chats
    keep_alive_comments: int = 0  # comments before the first token
    keep_alive_seconds: float = 0.0
    tool_call: bool = False
    healthy: bool = True
    max_concurrent_requests: int = 128
    max_input_tokens: int = 4095
    info_style: str = "new"  # or "2.0"
    ignores_limit: bool = False
    split_bytes: bool = False  # events straddle HTTP chunks
    hangs_after_first: bool = False

    def handle(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.method == "GET":
            self._get(exchange, request.path)
        elif self.api_key and request.headers.get("authorization", "").lower() != (
            f"bearer {self.api_key}".lower()
        ):
            exchange.respond(401)
        elif self.fault in BEFORE_HEADER:
            fail_before_header(exchange, self.fault)
        else:
            self._post(exchange, request.path)

    def _get(self, exchange: Exchange, path: str) -> None:
        if path == "/health":
            if self.healthy:
                exchange.respond(200)
            else:
                exchange.respond_json(503, {"error": "unhealthy", "error_type": "healthcheck"})
        elif path == "/info":
            exchange.respond_json(200, self._info())
        else:
            exchange.respond(404)

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = {
            "model_id": MODEL,
            "model_sha": None,
            "model_pipeline_tag": "text-generation",
            "max_concurrent_requests": self.max_concurrent_requests,
            "max_best_of": 2,
            "max_stop_sequences": 4,
        }
        if self.info_style == "2.0":
            return info | {
                "model_dtype": "torch.float16",
                "max_input_length": self.max_input_tokens,
                "version": "2.0.4",
            }
        return info | {
            "max_input_tokens": self.max_input_tokens,
            "max_total_tokens": self.max_input_tokens + 1,
            "router": "text-generation-router",
            "version": "3.3.6-dev0",
        }

    def _post(self, exchange: Exchange, path: str) -> None:
        if path not in ("/", "/generate", "/generate_stream", "/v1/chat/completions"):
            exchange.respond(404)
            return
        if exchange.request.headers.get("content-type") != "application/json":
            exchange.respond(415, b"Expected request with `Content-Type: application/json`")
            return
        body = exchange.request.json
        problem = _unreadable(body)
        if problem:
            said = f"Failed to deserialize the JSON body into the target type: {problem}"
            exchange.respond(422, said.encode(), content_type="text/plain; charset=utf-8")
        elif path == "/v1/chat/completions":
            self._chat(exchange, body)
        elif path == "/generate_stream" or body.get("stream"):
            self._generate_stream(exchange, body)
        else:
            self._generate(exchange, body, as_list=path == "/")

    # Errors

    def _error(self, prompt: str) -> tuple[int, str, str] | None:
        if self.error == "overloaded":
            return 429, "Model is overloaded", "overloaded"
        if self.error == "validation":
            said = "Input validation error: `temperature` must be strictly positive"
            return 422, said, "validation"
        if len(prompt.split()) > self.max_input_tokens:
            said = (
                f"Input validation error: `inputs` must have less than "
                f"{self.max_input_tokens} tokens. Given: {len(prompt.split())}"
            )
            return 422, said, "validation"
        if self.error == "generation":
            said = "Request failed during generation: Server error: CUDA out of memory"
            return 424, said, "generation"
        if self.error == "incomplete":
            return 500, "Incomplete generation stream", "incomplete_generation_stream"
        return None

    # Streams

    def _data(self, exchange: Exchange, payload: bytes) -> None:
        line = (b"data: " if self.data_space else b"data:") + payload + b"\n\n"
        if self.split_bytes:
            for start in range(0, len(line), 7):
                exchange.chunk(line[start : start + 7])
        else:
            exchange.chunk(line)

    def _begin(self, exchange: Exchange) -> None:
        exchange.start_stream()
        for _ in range(self.keep_alive_comments):
            exchange.wait(self.keep_alive_seconds)
            exchange.chunk(b":\n\n")

    def _generate_stream(self, exchange: Exchange, body: dict[str, Any]) -> None:
        self._begin(exchange)
        parameters = body.get("parameters", {})
        error = self._error(body["inputs"]) or _bad_parameters(parameters)
        if error and not (self.error == "generation" and self.error_after):
            self._data(exchange, compact({"error": error[1], "error_type": error[2]}))
            exchange.end_stream()
            return
        limit = None if self.ignores_limit else parameters.get("max_new_tokens")
        tokens = list(self.tokens[:limit])
        finish = self.finish_reason if len(tokens) == len(self.tokens) else "length"
        has_eos = finish == "eos_token"
        count = len(tokens) + has_eos
        for index, text in enumerate(tokens, start=1):
            if self.error == "generation" and error and index > self.error_after:
                self._data(exchange, compact({"error": error[1], "error_type": error[2]}))
                exchange.end_stream()
                return
            if self._fails_at(exchange, index):
                return
            event = _token_event(index, text)
            if index == count:
                event |= self._last(tokens, finish, count, parameters)
            self._data(exchange, compact(event))
            if self.hangs_after_first:
                exchange.hang()
        if has_eos:
            event = _token_event(count, "</s>", special=True)
            self._data(exchange, compact(event | self._last(tokens, finish, count, parameters)))
        exchange.end_stream()

    def _last(
        self, tokens: list[str], finish: str, count: int, parameters: dict[str, Any]
    ) -> dict[str, Any]:
        details = {
            "finish_reason": finish,
            "generated_tokens": count,
            "seed": None,
            "input_length": self.input_length,
        }
        return {
            "generated_text": "".join(tokens),
            "details": details if parameters.get("details") else None,
        }

    def _fails_at(self, exchange: Exchange, index: int) -> bool:
        if self.fault is None or index != (2 if self.fault in AFTER_TEXT else 1):
            return False
        fail_in_stream(exchange, self.fault)
        return True

    def _chat(self, exchange: Exchange, body: dict[str, Any]) -> None:
        if body.get("response_format") and body.get("tools"):
            exchange.respond_json(422, sample("error-422-tool-error"))
            return
        self._begin(exchange)
        error = self._error(json.dumps(body["messages"]))
        if error and not self.error_after:
            self._chat_error(exchange, error)
            return
        if self.tool_call and body.get("tools"):
            for event in sample("chat-stream-tool-call"):
                self._data(exchange, compact(event))
            self._end_chat(exchange, body)
            return
        limit = body.get("max_tokens")
        tokens = self.tokens[:limit]
        for index, text in enumerate(tokens, start=1):
            if error and index > self.error_after:
                self._chat_error(exchange, error)
                return
            if self._fails_at(exchange, index):
                return
            self._data(exchange, compact(_chat_event(text, None)))
            if self.hangs_after_first:
                exchange.hang()
        finish = {"eos_token": "stop"}.get(self.finish_reason, self.finish_reason)
        finish = finish if len(tokens) == len(self.tokens) else "length"
        self._data(exchange, compact(_chat_event("", finish)))
        self._end_chat(exchange, body)

    def _chat_error(self, exchange: Exchange, error: tuple[int, str, str]) -> None:
        if self.nested_errors:
            inner = {"message": error[1], "http_status_code": 422}
            self._data(exchange, compact({"error": inner}))
            self._data(exchange, b"[DONE]")
        else:
            self._data(exchange, compact({"error": error[1], "error_type": error[2]}))
        exchange.end_stream()

    def _end_chat(self, exchange: Exchange, body: dict[str, Any]) -> None:
        if body.get("stream_options", {}).get("include_usage"):
            event = _chat_event("", None)
            counts = len(self.tokens) + 1
            event |= {
                "choices": [],
                "usage": {
                    "prompt_tokens": self.input_length,
                    "completion_tokens": counts,
                    "total_tokens": self.input_length + counts,
                },
            }
            self._data(exchange, compact(event))
        self._data(exchange, b"[DONE]")
        exchange.end_stream()

    # Not streamed

    def _generate(self, exchange: Exchange, body: dict[str, Any], *, as_list: bool) -> None:
        error = self._error(body["inputs"]) or _bad_parameters(body.get("parameters", {}))
        if error:
            exchange.respond_json(error[0], {"error": error[1], "error_type": error[2]})
            return
        if self.fault in (Fault.GARBAGE, Fault.NOT_AN_OBJECT):
            exchange.respond(200, b'{"hello":1}')
            return
        limit = body.get("parameters", {}).get("max_new_tokens")
        text = "".join(self.tokens[:limit])
        token = {"id": 1, "text": text, "logprob": -0.5, "special": False}
        answer: dict[str, Any] = {"generated_text": text}
        if body.get("parameters", {}).get("details"):
            answer["details"] = {
                "finish_reason": "length",
                "generated_tokens": limit or len(self.tokens),
                "seed": None,
                "prefill": [],
                "tokens": [token],
            }
        exchange.respond_json(200, [answer] if as_list else answer)


def serve(tgi: Tgi) -> FakeServer:
    """A server that behaves as `tgi` says at each moment."""
    return FakeServer(tgi.handle)


def _token_event(index: int, text: str, *, special: bool = False) -> dict[str, Any]:
    token = {"id": index, "text": text, "logprob": -0.25, "special": special}
    return {"index": index, "token": token, "generated_text": None, "details": None}


def _chat_event(text: str, finish: str | None) -> dict[str, Any]:
    choice = {
        "index": 0,
        "delta": {"role": "assistant", "content": text},
        "logprobs": None,
        "finish_reason": finish,
    }
    return {
        "object": "chat.completion.chunk",
        "id": "",
        "created": 1741266005,
        "model": MODEL,
        "system_fingerprint": "3.3.6-dev0-native",
        "choices": [choice],
        "usage": None,
    }


def _bad_parameters(parameters: dict[str, Any]) -> tuple[int, str, str] | None:
    said = None
    if parameters.get("temperature") == 0:
        said = "`temperature` must be strictly positive"
    elif parameters.get("top_p") is not None and not 0 < parameters["top_p"] < 1:
        said = "`top_p` must be > 0.0 and < 1.0"
    elif len(parameters.get("stop", [])) > 4:
        said = "`stop` supports up to 4 stop sequences"
    return (422, f"Input validation error: {said}", "validation") if said else None


def _unreadable(body: dict[str, Any]) -> str | None:
    """What serde refuses before TGI itself sees the request."""
    parameters = body.get("parameters") or {}
    for key in NOT_NULL:
        if (key in body and body[key] is None) or (
            key in parameters and parameters[key] is None
        ):
            return f"{key}: invalid type: null"
    checks = {
        "top_p: 1.0 is out of range": body.get("top_p", 0.5) >= 1,
        "stop: expected a sequence": not isinstance(body.get("stop", []), list),
        "duplicate field `max_tokens`": {"max_tokens", "max_completion_tokens"} <= body.keys(),
        "suffix": "suffix" in body,
        "response_format: missing field `value`": (
            "response_format" in body and "value" not in body["response_format"]
        ),
    }
    return next((said for said, is_bad in checks.items() if is_bad), None)
