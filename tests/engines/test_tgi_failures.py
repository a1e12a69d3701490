"""How text-generation-inference fails, and how it is checked and probed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.core.domain.errors import EngineError, EngineRejected
from app.core.engines.base import EngineClient
from app.core.engines.registry import EngineRegistry
from tests.engines.conftest import chat, completion, target_of
from tests.fakes.http_server import FakeServer
from tests.fakes.tgi import MODEL, Tgi

Serve = Callable[..., FakeServer]
TOOL = {
    "type": "function",
    "function": {"name": "get_current_weather", "parameters": {"type": "object"}},
}


@pytest.fixture
def client(registry: EngineRegistry) -> EngineClient:
    return registry.client("tgi")


# Errors


@pytest.mark.parametrize("is_nested", [True, False])
@pytest.mark.parametrize(
    ("error", "reason"),
    [("overloaded", "engine_overloaded"), ("validation", "engine_rejected"),
     ("generation", "engine_broke"), ("incomplete", "engine_broke")],
)  # fmt: skip
def test_errors_inside_a_chat_are_told_apart_by_their_words(
    client: EngineClient, serve: Serve, is_nested: bool, error: str, reason: str
) -> None:
    server = serve(Tgi(error=error, nested_errors=is_nested))

    with pytest.raises(EngineError) as caught:
        list(client.generate(target_of(server), chat()))

    assert caught.value.reason == reason
    assert caught.value.retryable is (reason != "engine_rejected")


def test_a_recorded_refusal_of_tools_and_grammar(client: EngineClient, serve: Serve) -> None:
    server = serve(Tgi())
    wanted = {"type": "regex", "value": "a"}

    with pytest.raises(EngineRejected, match="mutually exclusive"):
        list(client.generate(target_of(server), chat(tools=(TOOL,), response_format=wanted)))


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (422, b"Failed to deserialize the JSON body into the target type: x", "engine_rejected"),
        (422, b'{"error":"Tool error: Failed to parse generated text","error_type":"tool_error"}',
         "engine_broke"),
        (424, b'{"error":"Request failed during generation","error_type":"generation"}',
         "engine_broke"),
        (429, b'{"error":"Model is overloaded","error_type":"overloaded"}', "engine_overloaded"),
        (401, b"", "engine_refused"),
        (404, b"", "engine_refused"),
        (413, b"length limit exceeded", "engine_rejected"),
        (500, b'{"error":"Incomplete generation","error_type":"incomplete_generation"}',
         "engine_broke"),
        (502, b"<html>Bad gateway</html>", "engine_broke"),
        (302, b"", "engine_broke"),
    ],
)  # fmt: skip
def test_http_errors(client: EngineClient, status: int, body: bytes, reason: str) -> None:
    with (
        FakeServer(lambda exchange: exchange.respond(status, body)) as server,
        pytest.raises(EngineError) as caught,
    ):
        list(client.generate(target_of(server), chat()))

    assert caught.value.reason == reason
    assert "<html>" not in caught.value.message


def test_a_crash_mid_stream_keeps_what_was_said(client: EngineClient, serve: Serve) -> None:
    server = serve(Tgi(error="generation", error_after=1))
    chunks = client.generate(target_of(server), completion())

    assert next(chunks).text == "Hel"
    with pytest.raises(EngineError, match="CUDA out of memory"):
        next(chunks)


# check and probe


@pytest.mark.parametrize(("style", "context"), [("new", 4096), ("2.0", 4095)])
def test_check_reads_info_of_all_versions(
    client: EngineClient, serve: Serve, style: str, context: int
) -> None:
    server = serve(Tgi(info_style=style, max_concurrent_requests=32))

    status = client.check(target_of(server))

    assert status.models == (MODEL,)
    assert status.max_concurrent_requests == 32
    assert status.context_tokens == context
    assert status.version in ("3.3.6-dev0", "2.0.4")


def test_an_unhealthy_tgi_fails_its_check(client: EngineClient, serve: Serve) -> None:
    server = serve(Tgi(healthy=False))

    with pytest.raises(EngineError, match="unhealthy"):
        client.check(target_of(server))


def test_the_probe_does_not_pass_on_the_machines_own_credentials(
    client: EngineClient, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server = serve(Tgi())

    client.probe(target_of(server))

    assert "hf_secret" not in str(server.requests[0].headers)


def test_the_probe_sends_the_engine_one_request_and_nothing_else(
    registry: EngineRegistry, serve: Serve
) -> None:
    """The library calls home on its own accord; that must not end up at a provider's node."""
    server = serve(Tgi())

    registry.client("tgi").probe(target_of(server))

    assert server.paths == ["/"]


def test_huggingfaces_library_reaches_nothing_but_engines(
    client: EngineClient, serve: Serve
) -> None:
    from huggingface_hub import InferenceClient

    server = serve(Tgi())
    client.probe(target_of(server))

    with pytest.raises(Exception, match="reaches engines alone"):
        InferenceClient(base_url=server.url).text_generation("Hi")
