"""What the engines that speak the OpenAI API do each in their own way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.core.domain.errors import EngineError, EngineRejected, PromptTooLong
from app.core.domain.runs import Chunk, FinishReason, RunRequest, Sampling, Usage
from app.core.engines.base import EngineStatus
from app.core.engines.registry import EngineRegistry
from tests.engines.conftest import chat, completion, target_of, text_of
from tests.fakes.http_server import FakeServer
from tests.fakes.openai_engine import CONTEXT, MODEL, OpenAIEngine
from tests.fixtures.waiting import eventually

Serve = Callable[..., FakeServer]
EVERYTHING = Sampling(
    max_tokens=9,
    temperature=0.5,
    top_p=0.9,
    top_k=40,
    seed=7,
    stop=("a", "b"),
    presence_penalty=0.1,
    frequency_penalty=0.2,
    repetition_penalty=1.1,
)
COMMON = {
    "max_tokens": 9,
    "temperature": 0.5,
    "top_p": 0.9,
    "seed": 7,
    "stop": ["a", "b"],
    "presence_penalty": 0.1,
    "frequency_penalty": 0.2,
}


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("vllm", {"top_k": 40, "repetition_penalty": 1.1}),
        ("sglang", {"top_k": 40, "repetition_penalty": 1.1}),
        ("llamacpp", {"top_k": 40, "repeat_penalty": 1.1}),
        ("ollama", {}),
        ("openai", {}),
    ],
)
@pytest.mark.parametrize("is_chat", [True, False])
def test_each_kind_gets_the_fields_it_takes(
    registry: EngineRegistry, serve: Serve, kind: str, own: dict[str, Any], is_chat: bool
) -> None:
    server = serve(OpenAIEngine(kind))
    request = chat(sampling=EVERYTHING)
    if not is_chat:
        request = RunRequest("m", completion().kind, prompt="Once", sampling=EVERYTHING)

    list(registry.client(kind).generate(target_of(server), request))

    body = server.requests[0].json
    prompt = "messages" if is_chat else "prompt"
    assert body.pop("model") == MODEL
    assert body.pop("stream") is True
    assert body.pop("stream_options") == {"include_usage": True}
    assert body.pop(prompt)
    assert body == COMMON | own


def test_tools_and_formats_go_through_as_they_are(
    registry: EngineRegistry, serve: Serve
) -> None:
    server = serve(OpenAIEngine("vllm"))
    tool = {"type": "function", "function": {"name": "f"}}
    wanted = {"type": "json_object"}
    request = chat(tools=(tool,), tool_choice="required", response_format=wanted)

    list(registry.client("vllm").generate(target_of(server), request))

    body = server.requests[0].json
    assert body["tools"] == [tool]
    assert body["tool_choice"] == "required"
    assert body["response_format"] == wanted


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_reasoning_is_kept_apart(registry: EngineRegistry, serve: Serve, key: str) -> None:
    server = serve(OpenAIEngine("vllm", reasoning=("Let me ", "think."), reasoning_key=key))

    chunks = list(registry.client("vllm").generate(target_of(server), chat()))

    assert "".join(chunk.reasoning for chunk in chunks) == "Let me think."
    assert text_of(chunks) == "Hello world"


def test_tool_calls_come_through_without_what_the_api_does_not_define(
    registry: EngineRegistry, serve: Serve
) -> None:
    deltas = (
        {
            "index": 0,
            "id": "c1",
            "type": "function",
            "function": {"name": "f", "arguments": ""},
        },
        {"index": 0, "function": {"name": None, "arguments": '{"a"'}, "evil": 1},
        {"index": 0, "id": None, "function": {"arguments": ":1}"}},
        {"index": 1, "id": "c2", "type": "x", "function": {"name": "g", "arguments": {"b": 2}}},
    )
    server = serve(OpenAIEngine("openai", tokens=(), tool_deltas=deltas, finish_reason="stop"))

    chunks = list(registry.client("openai").generate(target_of(server), chat()))

    assert [delta for chunk in chunks for delta in chunk.tool_calls] == [
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a"'}},
        {"index": 0, "function": {"arguments": ":1}"}},
        {"index": 1, "id": "c2", "type": "function",
         "function": {"name": "g", "arguments": '{"b": 2}'}},
    ]  # fmt: skip
    assert chunks[-1].finish_reason is FinishReason.TOOL_CALLS


@pytest.mark.parametrize(
    ("said", "reason"),
    [("stop", FinishReason.STOP), ("length", FinishReason.LENGTH),
     ("tool_calls", FinishReason.TOOL_CALLS), ("content_filter", FinishReason.CONTENT_FILTER),
     ("eos", FinishReason.STOP), ("something new", FinishReason.STOP)],
)  # fmt: skip
def test_finish_reasons(
    registry: EngineRegistry, serve: Serve, said: str, reason: FinishReason
) -> None:
    server = serve(OpenAIEngine(finish_reason=said))

    chunks = list(registry.client("openai").generate(target_of(server), chat()))

    assert chunks[-1].finish_reason is reason


@pytest.mark.parametrize("said", ["abort", "error"])
def test_an_answer_that_the_engine_gave_up_is_an_error(
    registry: EngineRegistry, serve: Serve, said: str
) -> None:
    server = serve(OpenAIEngine(finish_reason=said))

    with pytest.raises(EngineError, match=said):
        list(registry.client("vllm").generate(target_of(server), chat()))


def test_an_answer_without_a_closing_mark_counts_once_its_end_was_told(
    registry: EngineRegistry, serve: Serve
) -> None:
    server = serve(OpenAIEngine(sends_done=False, sends_usage=False))

    chunks = list(registry.client("openai").generate(target_of(server), chat()))

    assert text_of(chunks) == "Hello world"
    assert chunks[-1] == Chunk(finish_reason=FinishReason.STOP)


def test_an_engine_that_hangs_after_its_answer_does_not_spoil_it(
    registry: EngineRegistry, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.core.engines.chat_stream._AFTER_FINISH_SECONDS", 0.2)
    server = serve(OpenAIEngine(hangs_after_finish=True))

    chunks = list(registry.client("openai").generate(target_of(server), chat()))

    assert text_of(chunks) == "Hello world"
    assert chunks[-1].finish_reason is FinishReason.STOP
    eventually(lambda: server.counts.open_now == 0)


def test_an_answer_with_nothing_in_it_is_an_error(
    registry: EngineRegistry, serve: Serve
) -> None:
    server = serve(OpenAIEngine(tokens=(), finish_reason=None))

    with pytest.raises(EngineError, match="without a word"):
        list(registry.client("openai").generate(target_of(server), chat()))


def test_counts_that_make_no_sense_are_unknown(registry: EngineRegistry, serve: Serve) -> None:
    server = serve(OpenAIEngine(input_length=-5))

    chunks = list(registry.client("openai").generate(target_of(server), chat()))

    assert chunks[-1].usage == Usage(None, 3)


def test_nul_is_dropped_from_texts(registry: EngineRegistry, serve: Serve) -> None:
    server = serve(OpenAIEngine(tokens=("a\0b",)))

    chunks = list(registry.client("openai").generate(target_of(server), chat()))

    assert text_of(chunks) == "ab"


@pytest.mark.parametrize(
    ("status", "body", "error", "reason"),
    [
        (400, b'{"error":{"message":"bad","type":"invalid_request_error"}}',
         EngineRejected, "engine_rejected"),
        (400, b'{"object":"error","message":"bad","code":400}', EngineRejected, "engine_rejected"),
        (422, b'{"detail":[{"loc":["body"],"msg":"x"}]}', EngineRejected, "engine_rejected"),
        (400, b"\xff\xfe", EngineRejected, "engine_rejected"),
        (404, b'{"error":"model not found, try pulling it first"}', EngineError, "engine_refused"),
        (403, b"", EngineError, "engine_refused"),
        (429, b'{"error":{"message":"rate limit"}}', EngineError, "engine_overloaded"),
        (503, b'{"error":{"code":503,"message":"Loading model"}}', EngineError,
         "engine_overloaded"),
        (500, b"[" * 100_000, EngineError, "engine_broke"),
        (504, b"", EngineError, "engine_timeout"),
        (301, b"", EngineError, "engine_broke"),
    ],
)  # fmt: skip
def test_http_errors(
    registry: EngineRegistry,
    serve: Serve,
    status: int,
    body: bytes,
    error: type[EngineError],
    reason: str,
) -> None:
    server = serve(OpenAIEngine(status=status, error_body=body))

    with pytest.raises(error) as caught:
        list(registry.client("openai").generate(target_of(server), chat()))

    assert caught.value.reason == reason
    assert caught.value.retryable is (reason != "engine_rejected")
    assert len(caught.value.message) < 500
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"error":{"code":"context_length_exceeded","message":"no"}}', PromptTooLong),
        (b'{"error":{"type":"exceed_context_size_error","message":"no","code":400}}',
         PromptTooLong),
        (b'{"error":{"message":"The decoder prompt (length 5000) is longer than the maximum model '
         b'length of 4096."}}', PromptTooLong),
        (b'{"error":{"message":"unknown role"}}', EngineRejected),
    ],
)  # fmt: skip
def test_which_refusals_mean_that_the_prompt_is_too_long(
    registry: EngineRegistry, serve: Serve, body: bytes, error: type[Exception]
) -> None:
    server = serve(OpenAIEngine(status=400, error_body=body))

    with pytest.raises(error):
        list(registry.client("openai").generate(target_of(server), chat()))


def test_a_json_error_with_status_200_is_an_error(registry: EngineRegistry) -> None:
    body = b'{"error":{"message":"maximum context length is 10 tokens","code":400}}'
    with (
        FakeServer(lambda exchange: exchange.respond(200, body)) as server,
        pytest.raises(PromptTooLong),
    ):
        list(registry.client("openai").generate(target_of(server), chat()))


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("vllm", EngineStatus((MODEL,), None, CONTEXT, "0.19.1")),
        ("sglang", EngineStatus((MODEL,), 64, CONTEXT, "0.5.9")),
        ("llamacpp", EngineStatus((MODEL,), 4, CONTEXT, "b11549-abc")),
        ("ollama", EngineStatus((MODEL,), None, None, "0.22.0")),
        ("openai", EngineStatus((MODEL,))),
    ],
)
def test_what_each_kind_tells_of_itself(
    registry: EngineRegistry, serve: Serve, kind: str, status: EngineStatus
) -> None:
    server = serve(OpenAIEngine(kind))

    assert registry.client(kind).check(target_of(server)) == status


@pytest.mark.parametrize(
    ("kind", "path"),
    [("vllm", "/version"), ("sglang", "/get_server_info"), ("llamacpp", "/props")],
)
def test_a_check_passes_without_what_not_all_versions_have(
    registry: EngineRegistry, serve: Serve, kind: str, path: str
) -> None:
    server = serve(OpenAIEngine(kind, missing_paths=frozenset({path})))

    status = registry.client(kind).check(target_of(server))

    assert status.models == (MODEL,)
    assert status.version is None


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llamacpp"])
def test_an_engine_that_still_loads_fails_its_check(
    registry: EngineRegistry, serve: Serve, kind: str
) -> None:
    server = serve(OpenAIEngine(kind, healthy=False))

    with pytest.raises(EngineError) as caught:
        registry.client(kind).check(target_of(server))

    assert caught.value.reason == "engine_overloaded"


def test_a_model_without_chats_is_probed_by_a_completion(
    registry: EngineRegistry, serve: Serve
) -> None:
    server = serve(OpenAIEngine("llamacpp", has_chat_template=False))

    registry.client("llamacpp").probe(target_of(server))

    assert server.paths == ["/v1/chat/completions", "/v1/completions"]
