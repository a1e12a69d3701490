"""What holds for every kind of engine. One suite: a new kind is one more parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.core.domain.errors import EngineError, EngineRejected, InvalidInput, PromptTooLong
from app.core.domain.runs import FinishReason, RunKind, RunRequest, Sampling
from app.core.engines.base import EngineClient
from app.core.engines.registry import ENGINE_KINDS, EngineRegistry
from tests.engines.conftest import chat, completion, fake, relayed, target_of, text_of
from tests.fakes import openai_engine, tgi
from tests.fakes.faults import Fault
from tests.fakes.http_server import FakeServer
from tests.fixtures.waiting import eventually

Serve = Callable[..., FakeServer]

BROKEN = {
    Fault.TRUNCATED: "engine_broke",
    Fault.CUT: "engine_unreachable",
    Fault.GARBAGE: "engine_broke",
    Fault.NOT_AN_OBJECT: "engine_broke",
    Fault.ODD_SHAPE: "engine_broke",
    Fault.HUGE_LINE: "engine_broke",
    Fault.NEVER_ENDING: "engine_broke",
    Fault.SILENT: "engine_timeout",
    Fault.SILENT_LATER: "engine_timeout",
    Fault.COMMENTS_ONLY: "engine_timeout",
    Fault.HANG: "engine_timeout",
    Fault.NOT_A_STREAM: "engine_broke",
    Fault.NOT_HTTP: "engine_broke",
    Fault.ENDLESS_HEADER: "engine_broke",
}
AWAITS_TIMEOUT = {fault for fault, reason in BROKEN.items() if reason == "engine_timeout"}


@pytest.fixture(params=ENGINE_KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(registry: EngineRegistry, kind: str) -> EngineClient:
    return registry.client(kind)


@pytest.fixture(params=[RunKind.CHAT, RunKind.COMPLETION], ids=["chat", "completion"])
def request_of_each_kind(request: pytest.FixtureRequest) -> RunRequest:
    return chat() if request.param is RunKind.CHAT else completion()


def reason_of(
    client: EngineClient, server: FakeServer, request: RunRequest, **target: Any
) -> str:
    with pytest.raises(EngineError) as caught:
        list(client.generate(target_of(server, **target), request))
    return caught.value.reason


def test_the_text_arrives_in_order_and_the_last_chunk_alone_tells_the_end(
    client: EngineClient, kind: str, serve: Serve, request_of_each_kind: RunRequest
) -> None:
    server = serve(fake(kind))

    chunks = list(client.generate(target_of(server), request_of_each_kind))

    assert text_of(chunks) == "Hello world"
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * 3
    assert chunks[-1].finish_reason is FinishReason.STOP
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.input_tokens == 7
    assert (chunks[-1].usage.output_tokens or 0) >= 3


def test_a_text_cut_at_the_limit_says_so(
    client: EngineClient, kind: str, serve: Serve, request_of_each_kind: RunRequest
) -> None:
    server = serve(fake(kind))
    request = RunRequest(
        "m",
        kind=request_of_each_kind.kind,
        messages=request_of_each_kind.messages,
        prompt=request_of_each_kind.prompt,
        sampling=Sampling(max_tokens=2),
    )

    chunks = list(client.generate(target_of(server), request))

    assert text_of(chunks) == "Hello"
    assert chunks[-1].finish_reason is FinishReason.LENGTH


def test_unset_options_are_not_sent_at_all(
    client: EngineClient, kind: str, serve: Serve, request_of_each_kind: RunRequest
) -> None:
    server = serve(fake(kind))

    list(client.generate(target_of(server), request_of_each_kind))

    body = server.requests[0].json
    assert None not in body.values()
    assert None not in body.get("parameters", {}).values()
    assert "temperature" not in body
    assert "max_tokens" not in body


@pytest.mark.parametrize(
    "text", ["a\u2028b", "a\u2029b\u0085c", "x\r\ny\n", "日本 👩‍👩‍👧", '"\\']
)
def test_any_character_survives(
    client: EngineClient,
    kind: str,
    serve: Serve,
    request_of_each_kind: RunRequest,
    text: str,
) -> None:
    server = serve(fake(kind, tokens=(text, "!"), split_bytes=True))

    chunks = list(client.generate(target_of(server), request_of_each_kind))

    assert text_of(chunks) == text + "!"


def test_data_lines_are_read_with_and_without_a_space(
    client: EngineClient, kind: str, serve: Serve, request_of_each_kind: RunRequest
) -> None:
    server = serve(fake(kind, data_space=False))

    chunks = list(client.generate(target_of(server), request_of_each_kind))

    assert text_of(chunks) == "Hello world"


def test_keep_alive_comments_are_not_text(
    client: EngineClient, kind: str, serve: Serve, request_of_each_kind: RunRequest
) -> None:
    server = serve(fake(kind, keep_alive_comments=3))

    chunks = list(client.generate(target_of(server), request_of_each_kind))

    assert text_of(chunks) == "Hello world"


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name.lower())
def test_a_broken_stream_is_an_error_and_the_connection_is_given_up(
    client: EngineClient,
    kind: str,
    serve: Serve,
    request_of_each_kind: RunRequest,
    fault: Fault,
) -> None:
    server = serve(fake(kind, fault=fault))
    seconds = 0.3 if fault in AWAITS_TIMEOUT else 20.0

    reason = reason_of(
        client,
        server,
        request_of_each_kind,
        first_chunk_timeout_seconds=seconds,
        idle_timeout_seconds=seconds,
    )

    assert reason == BROKEN[fault]
    eventually(lambda: server.counts.open_now == 0 or fault is Fault.TRUNCATED)


def test_text_before_a_failure_is_kept(
    client: EngineClient, kind: str, serve: Serve, request_of_each_kind: RunRequest
) -> None:
    server = serve(fake(kind, fault=Fault.CUT))
    chunks = client.generate(target_of(server), request_of_each_kind)

    assert next(chunks).text == "Hel"
    with pytest.raises(EngineError):
        next(chunks)


def test_a_failure_inside_the_stream_is_an_error(
    client: EngineClient, kind: str, serve: Serve, request_of_each_kind: RunRequest
) -> None:
    server = serve(fake(kind, error="generation", error_after=2))
    chunks = client.generate(target_of(server), request_of_each_kind)

    assert next(chunks).text + next(chunks).text == "Hello"
    with pytest.raises(EngineError) as caught:
        next(chunks)
    assert caught.value.reason == "engine_broke"
    assert caught.value.retryable


def test_closing_the_answer_frees_the_slot(
    client: EngineClient, kind: str, serve: Serve, request_of_each_kind: RunRequest
) -> None:
    server = serve(fake(kind, hangs_after_first=True))
    chunks = client.generate(target_of(server), request_of_each_kind)
    assert next(chunks).text == "Hel"

    chunks.close()

    eventually(lambda: server.counts.cancelled == 1)
    assert server.counts.open_now == 0


def test_no_engine_is_unreachable(
    client: EngineClient, kind: str, serve: Serve, request_of_each_kind: RunRequest
) -> None:
    server = serve(fake(kind))
    target = target_of(server)
    server.stop()

    with pytest.raises(EngineError) as caught:
        list(client.generate(target, request_of_each_kind))

    assert caught.value.reason == "engine_unreachable"
    assert caught.value.retryable


def test_an_overloaded_engine_may_be_tried_elsewhere(
    client: EngineClient, kind: str, serve: Serve, request_of_each_kind: RunRequest
) -> None:
    server = serve(fake(kind, error="overloaded"))

    assert reason_of(client, server, request_of_each_kind) == "engine_overloaded"


def test_a_request_that_is_wrong_is_not_tried_elsewhere(
    client: EngineClient, kind: str, serve: Serve, request_of_each_kind: RunRequest
) -> None:
    server = serve(fake(kind, error="validation"))

    with pytest.raises(EngineRejected) as caught:
        list(client.generate(target_of(server), request_of_each_kind))

    assert not caught.value.retryable
    assert "temperature" in caught.value.message


@pytest.mark.parametrize("kind_of_run", [RunKind.CHAT, RunKind.COMPLETION])
def test_a_prompt_too_long_is_told_as_such(
    client: EngineClient, kind: str, serve: Serve, kind_of_run: RunKind
) -> None:
    server = serve(fake(kind))
    words = "word " * 5000
    request = chat(words) if kind_of_run is RunKind.CHAT else completion(words)

    with pytest.raises(PromptTooLong):
        list(client.generate(target_of(server), request))


def test_a_wrong_key_is_the_nodes_fault_not_the_requests(
    client: EngineClient, kind: str, serve: Serve, request_of_each_kind: RunRequest
) -> None:
    server = serve(fake(kind, api_key="right"))

    reason = reason_of(client, server, request_of_each_kind, api_key="wrong")

    assert reason == "engine_refused"


def test_the_key_is_sent(
    client: EngineClient, kind: str, serve: Serve, request_of_each_kind: RunRequest
) -> None:
    server = serve(fake(kind, api_key="right"))
    target = target_of(server, api_key="right")

    assert text_of(list(client.generate(target, request_of_each_kind))) == "Hello world"


def test_an_address_outside_the_allowed_networks_is_not_connected_to(
    client: EngineClient, kind: str, serve: Serve, request_of_each_kind: RunRequest
) -> None:
    server = serve(fake(kind))

    reason = reason_of(client, server, request_of_each_kind, base_url="http://10.0.0.1:80")

    assert reason == "engine_refused"


def test_a_connection_is_used_again(
    client: EngineClient, kind: str, serve: Serve, request_of_each_kind: RunRequest
) -> None:
    server = serve(fake(kind))

    for _ in range(5):
        list(client.generate(target_of(server), request_of_each_kind))

    assert server.counts.opened == 1


def test_a_relay_gets_the_same_request_with_its_headers(
    client: EngineClient,
    kind: str,
    tmp_path: Any,
    request_of_each_kind: RunRequest,
) -> None:
    path = str(tmp_path / "relay")
    with FakeServer(fake(kind).handle, unix_path=path) as relay:
        chunks = list(client.generate(relayed(path), request_of_each_kind))

    assert text_of(chunks) == "Hello world"
    assert relay.requests[0].headers["x-relay-node"] == "n1"
    assert relay.requests[0].headers["host"] == "127.0.0.1:9"


def test_a_picture_that_an_engine_would_have_to_fetch_is_refused(
    client: EngineClient, kind: str, serve: Serve
) -> None:
    server = serve(fake(kind))
    part = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/x.png"}}
    request = RunRequest("m", messages=({"role": "user", "content": [part]},))

    with pytest.raises(InvalidInput):
        list(client.generate(target_of(server), request))

    assert server.requests == []


def test_check_tells_the_models(client: EngineClient, kind: str, serve: Serve) -> None:
    server = serve(fake(kind))

    status = client.check(target_of(server))

    assert status.models == ((tgi.MODEL,) if kind == "tgi" else (openai_engine.MODEL,))


def test_check_of_an_engine_that_is_not_there(
    client: EngineClient, kind: str, serve: Serve
) -> None:
    server = serve(fake(kind))
    target = target_of(server)
    server.stop()

    with pytest.raises(EngineError) as caught:
        client.check(target)

    assert caught.value.reason == "engine_unreachable"


def test_probe_has_one_token_generated(client: EngineClient, kind: str, serve: Serve) -> None:
    server = serve(fake(kind, api_key="right"))

    client.probe(target_of(server, api_key="right"))

    body = server.requests[-1].json
    asked = body["parameters"]["max_new_tokens"] if kind == "tgi" else body["max_tokens"]
    assert asked == 1


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"error": "overloaded"}, "engine_overloaded"),
        ({"error": "generation"}, "engine_broke"),
        ({"error": "validation"}, "engine_rejected"),
        ({"fault": Fault.GARBAGE}, "engine_broke"),
        ({"fault": Fault.HANG}, "engine_timeout"),
        ({"fault": Fault.NOT_HTTP}, "engine_broke"),
        ({"api_key": "another"}, "engine_refused"),
    ],
    ids=lambda value: str(value),
)
def test_probe_fails_as_generation_does(
    client: EngineClient, kind: str, serve: Serve, settings: dict[str, Any], reason: str
) -> None:
    server = serve(fake(kind, **settings))

    with pytest.raises(EngineError) as caught:
        client.probe(target_of(server, first_chunk_timeout_seconds=0.5))

    assert caught.value.reason == reason


def test_probe_obeys_the_outbound_policy(client: EngineClient, kind: str, serve: Serve) -> None:
    server = serve(fake(kind))

    with pytest.raises(EngineError) as caught:
        client.probe(target_of(server, base_url="http://169.254.169.254"))

    assert caught.value.reason == "engine_refused"


def test_probe_goes_through_the_relay(client: EngineClient, kind: str, tmp_path: Any) -> None:
    path = str(tmp_path / "relay")
    with FakeServer(fake(kind).handle, unix_path=path) as relay:
        client.probe(relayed(path))

    assert relay.requests[-1].headers["x-relay-node"] == "n1"


def test_there_is_no_client_for_an_unknown_kind(registry: EngineRegistry) -> None:
    with pytest.raises(InvalidInput):
        registry.client("gpt4all")
