"""Where text-generation-inference differs from what its API looks like."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from app.core.domain.runs import Chunk, FinishReason, RunRequest, Sampling, Usage
from app.core.engines.base import EngineClient
from app.core.engines.registry import EngineRegistry
from app.core.engines.stops import StopCutter
from tests.engines.conftest import chat, completion, target_of, text_of
from tests.fakes.http_server import Exchange, FakeServer, compact
from tests.fakes.tgi import Tgi, sample

Serve = Callable[..., FakeServer]
TOOL = {
    "type": "function",
    "function": {"name": "get_current_weather", "parameters": {"type": "object"}},
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


@pytest.fixture
def client(registry: EngineRegistry) -> EngineClient:
    return registry.client("tgi")


def sent(
    client: EngineClient, serve: Serve, request: RunRequest, **behaviour: Any
) -> dict[str, Any]:
    """The body that TGI got for a request it took."""
    server = serve(Tgi(**behaviour))
    list(client.generate(target_of(server), request))
    body: dict[str, Any] = server.requests[0].json
    return body


def replay(name: str) -> Callable[[Exchange], None]:
    """Streams a recorded answer of TGI."""

    def handle(exchange: Exchange) -> None:
        exchange.start_stream()
        for event in sample(name):
            exchange.chunk(b"data: " + compact(event) + b"\n\n")
        exchange.chunk(b"data: [DONE]\n\n")
        exchange.end_stream()

    return handle


def replayed(client: EngineClient, name: str) -> list[Chunk]:
    with FakeServer(replay(name)) as server:
        return list(client.generate(target_of(server), chat()))


# Recorded streams


def test_a_recorded_chat(client: EngineClient) -> None:
    chunks = replayed(client, "chat-stream-chunks")

    assert json.loads(text_of(chunks))["firstName"]
    assert chunks[-1] == Chunk(finish_reason=FinishReason.STOP)


def test_a_recorded_chat_with_usage(client: EngineClient) -> None:
    chunks = replayed(client, "chat-stream-usage")

    assert text_of(chunks) == "OK!"
    assert chunks[-1].usage == Usage(39, 3)


def test_a_recorded_tool_call_ends_as_one_though_tgi_never_says_so(
    client: EngineClient,
) -> None:
    chunks = replayed(client, "chat-stream-tool-call")

    deltas = [delta for chunk in chunks for delta in chunk.tool_calls]
    assert chunks[-1].finish_reason is FinishReason.TOOL_CALLS
    assert deltas[0]["function"]["name"] == "get_current_weather"
    assert all("name" not in delta["function"] for delta in deltas[1:])
    arguments = "".join(delta["function"]["arguments"] for delta in deltas)
    assert "location" in json.loads(arguments)


# What chats send


def test_a_chat_never_names_an_adapter(client: EngineClient, serve: Serve) -> None:
    assert sent(client, serve, chat())["model"] == "tgi"


@pytest.mark.parametrize(
    ("sampling", "fields"),
    [
        (Sampling(top_p=1.0), {}),
        (Sampling(top_p=0.9), {"top_p": 0.9}),
        (Sampling(top_p=0.0), {"top_p": 0.001}),
        (Sampling(temperature=0.0), {"temperature": 0.0}),
        (Sampling(stop=("x",)), {"stop": ["x"]}),
        (Sampling(presence_penalty=0.5, frequency_penalty=0.0), {}),
        (Sampling(frequency_penalty=0.5), {"frequency_penalty": 0.5}),
        (Sampling(repetition_penalty=1.1), {"presence_penalty": -0.9}),
        (Sampling(top_k=5), {}),
        (Sampling(seed=-1), {"seed": 2**64 - 1}),
        (Sampling(max_tokens=2**40), {"max_tokens": 1_000_000}),
    ],
)
def test_chat_sampling_in_tgis_terms(
    client: EngineClient, serve: Serve, sampling: Sampling, fields: dict[str, Any]
) -> None:
    body = sent(client, serve, chat(sampling=sampling))

    always = {"model", "messages", "stream", "stream_options"}
    assert {key: value for key, value in body.items() if key not in always} == fields


@pytest.mark.parametrize(
    ("response_format", "grammar"),
    [
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
            {"type": "json", "value": SCHEMA},
        ),
        ({"type": "json_object"}, None),
        ({"type": "text"}, None),
        ({"type": "regex", "value": "a+"}, {"type": "regex", "value": "a+"}),
        ({"type": "json_schema"}, None),
        (None, None),
    ],
)
def test_response_formats_become_grammars(
    client: EngineClient, serve: Serve, response_format: Any, grammar: Any
) -> None:
    body = sent(client, serve, chat(response_format=response_format))

    assert body.get("response_format") == grammar


@pytest.mark.parametrize(
    ("choice", "has_tools", "sent_choice"),
    [(None, True, None), ("auto", True, "auto"), ("required", True, "required"),
     ("none", False, None)],
)  # fmt: skip
def test_tool_choices(
    client: EngineClient, serve: Serve, choice: Any, has_tools: bool, sent_choice: Any
) -> None:
    body = sent(client, serve, chat(tools=(TOOL,), tool_choice=choice))

    assert ("tools" in body) is has_tools
    assert body.get("tool_choice") == sent_choice


def test_a_message_with_calls_keeps_them_by_losing_its_text(
    client: EngineClient, serve: Serve
) -> None:
    call = {"id": "0", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = (
        {"role": "user", "content": "Hi", "name": None},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "0", "content": None},
    )

    body = sent(client, serve, RunRequest("m", messages=messages))

    assert body["messages"] == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "0", "content": ""},
    ]


def test_tgi_is_not_made_to_fetch_pictures(client: EngineClient, serve: Serve) -> None:
    text = "See ![](http://10.0.0.1/a.png) and ![x](http://h/b) and [c](d)!"
    cleaned = "See [](http://10.0.0.1/a.png) and [x](http://h/b) and [c](d)!"
    part = {"type": "text", "text": text}

    as_text = sent(client, serve, chat(text))["messages"][0]["content"]
    messages = ({"role": "user", "content": [part]},)
    as_part = sent(client, serve, RunRequest("m", messages=messages))["messages"][0]["content"]
    as_prompt = sent(client, serve, completion(text))["inputs"]

    assert as_text == cleaned
    assert as_part == [{"type": "text", "text": cleaned}]
    assert as_prompt == cleaned


# What completions send


@pytest.mark.parametrize(
    ("sampling", "fields"),
    [
        ({}, {"do_sample": True}),
        ({"temperature": 0}, {"do_sample": False}),
        ({"temperature": 0.5}, {"do_sample": True, "temperature": 0.5}),
        ({"top_p": 1}, {"do_sample": True}),
        ({"top_k": 0}, {"do_sample": True}),
        ({"top_k": 5}, {"do_sample": True, "top_k": 5}),
        ({"max_tokens": 3}, {"do_sample": True, "max_new_tokens": 3}),
        ({"presence_penalty": 1.0}, {"do_sample": True}),
        ({"repetition_penalty": 1.2}, {"do_sample": True, "repetition_penalty": 1.2}),
    ],
)
def test_completion_sampling_in_tgis_terms(
    client: EngineClient, serve: Serve, sampling: dict[str, Any], fields: dict[str, Any]
) -> None:
    parameters = sent(client, serve, completion(**sampling))["parameters"]

    assert parameters == {"details": True, "return_full_text": False} | fields


# Ends


@pytest.mark.parametrize(
    ("said", "reason"),
    [("eos_token", FinishReason.STOP), ("stop_sequence", FinishReason.STOP),
     ("length", FinishReason.LENGTH)],
)  # fmt: skip
@pytest.mark.parametrize("request_", [chat(), completion()], ids=["chat", "completion"])
def test_finish_reasons(
    client: EngineClient, serve: Serve, request_: RunRequest, said: str, reason: FinishReason
) -> None:
    server = serve(Tgi(finish_reason=said))

    assert list(client.generate(target_of(server), request_))[-1].finish_reason is reason


def test_special_tokens_are_counted_but_are_no_text(client: EngineClient, serve: Serve) -> None:
    server = serve(Tgi())

    chunks = list(client.generate(target_of(server), completion()))

    assert text_of(chunks) == "Hello world"
    assert chunks[-1].usage == Usage(input_tokens=7, output_tokens=4)


@pytest.mark.parametrize(
    ("tokens", "stops", "text"),
    [
        (("a", "b", "END"), ("END",), "ab"),
        (("a", "E", "N", "D"), ("END",), "a"),
        (("a", "xEN", "Dy", "z"), ("END",), "ax"),
        (("a", "EN", "b"), ("END",), "aENb"),
        (("a", "EN"), ("END",), "aEN"),
        (("aa", "ab"), ("aab", "zz"), "a"),
        (("one", "\n", "\n", "two"), ("\n\n",), "one"),
        (("x", "y"), ("", "q"), "xy"),
    ],
)
def test_the_text_ends_before_the_stop_text(
    client: EngineClient,
    serve: Serve,
    tokens: tuple[str, ...],
    stops: tuple[str, ...],
    text: str,
) -> None:
    server = serve(Tgi(tokens=tokens, finish_reason="stop_sequence"))

    chunks = list(client.generate(target_of(server), completion(stop=stops)))

    assert text_of(chunks) == text
    assert chunks[-1].finish_reason is FinishReason.STOP


def test_a_stop_text_is_found_wherever_the_text_is_cut() -> None:
    text, stop = "one two three STOP four", "STOP"
    for size in range(1, 8):
        cutter = StopCutter((stop, "never"))
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        assert "".join(map(cutter.feed, pieces)) + cutter.rest() == "one two three "


def test_no_more_tokens_than_asked_for(client: EngineClient, serve: Serve) -> None:
    server = serve(Tgi(tokens=("a",) * 50, ignores_limit=True))

    chunks = list(client.generate(target_of(server), completion(max_tokens=5)))

    assert text_of(chunks) == "aaaaa"
    assert chunks[-1] == Chunk(finish_reason=FinishReason.LENGTH, usage=Usage(None, 5))
