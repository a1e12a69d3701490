"""Engines at the wire, one of each kind, and targets that reach them."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from app.core.domain.runs import Chunk, RunKind, RunRequest, Sampling
from app.core.engines.base import EngineTarget
from app.core.engines.registry import EngineRegistry
from app.core.outbound import OutboundPolicy
from tests.fakes import openai_engine, tgi
from tests.fakes.http_server import FakeServer

LOOPBACK = OutboundPolicy((ipaddress.ip_network("127.0.0.0/8"),))


@pytest.fixture
def registry() -> Iterator[EngineRegistry]:
    registry = EngineRegistry(LOOPBACK)
    yield registry
    registry.close()


@pytest.fixture
def serve() -> Iterator[Callable[[tgi.Tgi | openai_engine.OpenAIEngine], FakeServer]]:
    """Starts fake engines that stop with the test."""
    with ExitStack() as stack:

        def start(engine: tgi.Tgi | openai_engine.OpenAIEngine) -> FakeServer:
            return stack.enter_context(FakeServer(engine.handle))

        yield start


def target_of(server: FakeServer, **changes: object) -> EngineTarget:
    """A target with short patience, so that what hangs is found out quickly."""
    target = EngineTarget(
        base_url=server.url,
        served_name=openai_engine.MODEL,
        connect_timeout_seconds=5.0,
        first_chunk_timeout_seconds=5.0,
        idle_timeout_seconds=5.0,
    )
    return replace(target, **{**server.route, **changes})  # type: ignore[arg-type]


def chat(text: str = "Hi", **changes: object) -> RunRequest:
    request = RunRequest("a model", messages=({"role": "user", "content": text},))
    return replace(request, **changes)  # type: ignore[arg-type]


def completion(prompt: str = "Once", **sampling: object) -> RunRequest:
    return RunRequest(
        "a model",
        kind=RunKind.COMPLETION,
        prompt=prompt,
        sampling=Sampling(**sampling),  # type: ignore[arg-type]
    )


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def fake(kind: str, **settings: Any) -> tgi.Tgi | openai_engine.OpenAIEngine:
    if kind == "tgi":
        return tgi.Tgi(**settings)
    return openai_engine.OpenAIEngine(flavour=kind, **settings)


def relayed(path: str) -> EngineTarget:
    return EngineTarget(
        base_url="http://127.0.0.1:9",
        served_name=openai_engine.MODEL,
        relay=f"unix:{path}",
        relay_headers=(("X-Relay-Node", "n1"),),
    )
