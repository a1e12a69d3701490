"""Engines that run already: found out, watched, described; never touched."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from agent.config import Attachment
from agent.launchers.attach import AttachLauncher
from agent.launchers.base import EngineLoad, ReplicaState
from agent.launchers.facts import detect_kind
from agent.supervisor import Supervisor
from tests.agent.conditions import eventually
from tests.fakes import openai_engine, tgi
from tests.fakes.http_server import Exchange, FakeServer
from tests.fakes.openai_engine import OpenAIEngine
from tests.fakes.tgi import Tgi

KINDS = ("vllm", "sglang", "llamacpp", "ollama", "openai")


def make_launcher(url: str, **changes: Any) -> AttachLauncher:
    is_direct = changes.pop("is_direct", False)
    attachment = Attachment(**{"url": url, "model_name": "my-model", **changes})
    return AttachLauncher(attachment, is_direct=is_direct)


def described(launcher: AttachLauncher) -> dict[str, Any]:
    launcher.start()
    return launcher.describe(launcher.poll())


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_is_found_out(kind: str) -> None:
    with openai_engine.serve(OpenAIEngine(flavour=kind)) as server:
        assert detect_kind(server.url) == kind


def test_tgi_is_found_out() -> None:
    with tgi.serve(Tgi()) as server:
        assert detect_kind(server.url) == "tgi"


@pytest.mark.parametrize("owner", ["vllm", "sglang"])
def test_the_owner_in_the_model_list_tells_the_kind(owner: str) -> None:
    def handle(exchange: Exchange) -> None:
        if exchange.request.path == "/v1/models":
            exchange.respond_json(200, {"data": [{"id": "m", "owned_by": owner}]})
        else:
            exchange.respond(404)

    with FakeServer(handle) as server:
        assert detect_kind(server.url) == owner


def test_a_tgi_tells_its_limits() -> None:
    with tgi.serve(Tgi(max_concurrent_requests=32)) as server:
        replica = described(make_launcher(server.url))
    assert replica["engine"] == "tgi"
    assert replica["state"] == "ready"
    assert replica["concurrency"] == 32
    assert replica["context_tokens"] == 4096
    assert replica["engine_version"] == "3.3.6-dev0"


def test_a_llamacpp_tells_its_slots_and_its_own_name_for_the_model() -> None:
    engine = OpenAIEngine(flavour="llamacpp", total_slots=3)
    with openai_engine.serve(engine) as server:
        replica = described(make_launcher(server.url))
    assert replica["concurrency"] == 3
    assert replica["served_name"] == openai_engine.MODEL
    assert replica["model_name"] == "my-model"
    assert replica["context_tokens"] == openai_engine.CONTEXT
    assert replica["engine_version"] == "b11549-abc"


def test_a_build_that_does_not_know_itself_is_no_version() -> None:
    engine = OpenAIEngine(flavour="llamacpp", build="b0-unknown")
    with openai_engine.serve(engine) as server:
        assert described(make_launcher(server.url))["engine_version"] is None


def test_a_relayed_engine_s_address_and_key_stay_here() -> None:
    engine = OpenAIEngine(flavour="vllm", api_key="the-key")
    with openai_engine.serve(engine) as server:
        launcher = make_launcher(server.url, api_key="the-key")
        replica = described(launcher)
        address = launcher.address()
    assert replica["state"] == "ready"
    assert (replica["endpoint_url"], replica["api_key"]) == (None, None)
    assert address is not None
    assert (address.base_url, address.api_key) == (server.url, "the-key")


def test_a_direct_engine_s_address_and_key_are_told() -> None:
    engine = OpenAIEngine(flavour="vllm", api_key="the-key")
    with openai_engine.serve(engine) as server:
        launcher = make_launcher(server.url, api_key="the-key", is_direct=True)
        replica = described(launcher)
        assert (replica["endpoint_url"], replica["api_key"]) == (server.url, "the-key")
        public = make_launcher(server.url, is_direct=True, public_url="https://gpu.example.org")
        assert described(public)["endpoint_url"] == "https://gpu.example.org"


def test_an_engine_that_is_not_there_is_failed_with_the_reason() -> None:
    with FakeServer(lambda exchange: exchange.respond(200)) as server:
        url = server.url
    replica = described(make_launcher(url))
    assert replica["state"] == "failed"
    assert url in replica["error"]


def test_a_ready_engine_may_miss_a_look_but_not_three() -> None:
    engine = Tgi()
    with tgi.serve(engine) as server:
        launcher = make_launcher(server.url)
        launcher.start()
        assert launcher.poll().state is ReplicaState.READY
        engine.healthy = False
        states = [launcher.poll().state for _ in range(3)]
        assert states == [ReplicaState.READY, ReplicaState.READY, ReplicaState.FAILED]


def test_load_is_read_from_the_engine_s_own_counters() -> None:
    metrics = (
        b"# HELP vllm:num_requests_running x\n"
        b'vllm:num_requests_running{model_name="a"} 2.0\n'
        b'vllm:num_requests_running{model_name="b"} 1.0\n'
        b"vllm:num_requests_waiting 4\n"
    )

    def handle(exchange: Exchange) -> None:
        path = exchange.request.path
        if path == "/metrics":
            exchange.respond(200, metrics, content_type="text/plain")
        elif path == "/v1/models":
            exchange.respond_json(200, {"data": [{"id": "m", "owned_by": "vllm"}]})
        else:
            exchange.respond(200)

    with FakeServer(handle) as server:
        launcher = make_launcher(server.url)
        described(launcher)
        assert launcher.load() == EngineLoad(running=3, waiting=4)


def test_an_engine_that_does_not_count_has_no_load() -> None:
    with openai_engine.serve(OpenAIEngine(flavour="ollama")) as server:
        launcher = make_launcher(server.url)
        described(launcher)
        assert launcher.load() == EngineLoad(running=None, waiting=None)


def test_a_supervised_engine_that_comes_later_becomes_ready() -> None:
    engine = Tgi(healthy=False)
    changes: list[str] = []
    with tgi.serve(engine) as server:
        supervisor = Supervisor(
            make_launcher(server.url),
            wake=threading.Event(),
            on_change=lambda: changes.append(str(supervisor.health.state)),
            first_retry_seconds=0.01,
        )
        supervisor.start()
        eventually(lambda: "failed" in changes)
        engine.healthy = True
        eventually(lambda: changes[-1] == "ready")
        supervisor.stop()
        assert supervisor.join(60)
    assert changes[-1] == "stopped"
    # Failing looks in between are one state, told once.
    assert changes.count("failed") == 1
