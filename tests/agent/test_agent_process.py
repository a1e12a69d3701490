"""The agent as a process, with the real small model on the built-in engine."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.launchers.llamacpp import default_model_file
from tests.agent.conditions import eventually
from tests.fakes.file_server import FileServer
from tests.fakes.http_server import FakeServer
from tests.fakes.hub import ENROLMENT_TOKEN, FakeHub
from tests.fakes.relay_hub import RESPONSE, RESPONSE_END, FakeRelayHub

ROOT = Path(__file__).resolve().parents[2]
REPLICAS = "/agent/v1/replicas"
BEAT = "/agent/v1/heartbeat"

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub(heartbeat_seconds=0.5) as hub:
        yield hub


@pytest.fixture
def start(hub: FakeHub, tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def run(*options: str, token: str | None = ENROLMENT_TOKEN) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "agent", "--hub", hub.url]
        command += ["--state-dir", str(tmp_path / "state"), *options]
        environment = {
            name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ
        }
        if token:
            environment["WEFT_AGENT_TOKEN"] = token
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def start_engine(start: Start, *options: str) -> subprocess.Popen[bytes]:
    mode = () if "--mode" in options else ("--direct",)
    return start("--threads", "1", "--slots", "2", "--context", "512", *mode, *options)


def wait_for_ready(hub: FakeHub, *, after: int = 0) -> dict[str, Any]:
    def find() -> dict[str, Any] | None:
        for call in hub.of(REPLICAS)[after:]:
            for replica in call.body["replicas"]:
                if replica["state"] == "ready":
                    return dict(replica)
        return None

    found = eventually(find, seconds=60, what="a ready replica")
    assert found is not None
    return found


def engines_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def chat(replica: dict[str, Any], *, key: str | None) -> Any:
    body = {
        "model": replica["served_name"],
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 4,
    }
    request = urllib.request.Request(
        f"{replica['endpoint_url']}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def test_metrics_alone_need_no_engine(start: Start, hub: FakeHub, tmp_path: Path) -> None:
    process = start("--no-engine", "--name", "quiet")
    hub.wait_for(BEAT, 3)
    enrolment = hub.of("/agent/v1/enrol")[0].body
    assert enrolment["name"] == "quiet"
    assert enrolment["inventory"]["devices"]
    state = tmp_path / "state" / "agent.json"
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    assert hub.of(REPLICAS)[-1].body == {"replicas": []}
    # A machine that only reports stays small.
    assert psutil.Process(process.pid).memory_info().rss < 60 * 2**20
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert hub.of("/agent/v1/goodbye")


def test_the_second_start_needs_no_token(start: Start, hub: FakeHub) -> None:
    first = start("--no-engine")
    hub.wait_for(BEAT)
    first.terminate()
    assert first.wait(60) == 0
    beats = len(hub.of(BEAT))
    start("--no-engine", token=None)
    hub.wait_for(BEAT, beats + 1)
    assert len(hub.of("/agent/v1/enrol")) == 1


def test_without_a_token_the_first_start_says_what_to_do(start: Start) -> None:
    process = start("--no-engine", token=None)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 78
    assert b"--token" in output


def test_a_removed_node_stops_and_says_why(start: Start, hub: FakeHub) -> None:
    process = start("--no-engine")
    hub.wait_for(BEAT)
    hub.accept_enrolment = False
    hub.forget_node()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 78
    assert b"refused the enrolment" in output


def test_once_check_prints_the_inventory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent", "--once-check"],
        cwd=ROOT, capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert json.loads(done.stdout)["cpu_physical_cores"] >= 1


@pytest.mark.slow
def test_the_built_in_engine_answers_with_its_own_key_only(start: Start, hub: FakeHub) -> None:
    process = start_engine(start)
    replica = wait_for_ready(hub)
    assert replica["model_name"] == "smollm2-135m-instruct"
    assert replica["endpoint_url"].startswith("http://127.0.0.1:")
    assert (replica["concurrency"], replica["context_tokens"]) == (2, 512)
    answer = chat(replica, key=replica["api_key"])
    assert answer["choices"][0]["message"]["content"]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        chat(replica, key="another")
    told = hub.wait_until(
        BEAT, lambda body: body["replicas"] and body["replicas"][0]["running"] == 0
    )
    assert told["replicas"][0]["state"] == "ready"
    (engine,) = engines_of(process)
    assert replica["api_key"] not in " ".join(engine.cmdline())
    assert "WEFT_AGENT_TOKEN" not in engine.environ()
    assert engine.environ()["OMP_WAIT_POLICY"] == "PASSIVE"
    process.terminate()
    assert process.wait(60) == 0
    assert not engine.is_running()


@pytest.mark.slow
def test_an_engine_that_dies_is_started_again(start: Start, hub: FakeHub) -> None:
    process = start_engine(start)
    first = wait_for_ready(hub)
    told = len(hub.of(REPLICAS))
    (engine,) = engines_of(process)
    engine.kill()
    second = wait_for_ready(hub, after=told)
    assert second["endpoint_url"] != first["endpoint_url"]
    assert second["api_key"] != first["api_key"]
    replicas = [call.body["replicas"][0] for call in hub.of(REPLICAS)[told:]]
    # A state may be told twice, when something else about the replica changed.
    states = [state for state, _same in itertools.groupby(one["state"] for one in replicas)]
    assert states == ["failed", "starting", "ready"]
    assert "-9" in replicas[0]["error"]


@pytest.mark.slow
def test_no_engine_outlives_an_agent_that_is_killed(start: Start, hub: FakeHub) -> None:
    process = start_engine(start)
    wait_for_ready(hub)
    (engine,) = engines_of(process)
    process.kill()
    process.wait(60)
    eventually(lambda: not engine.is_running(), what="the engine's end")


@pytest.mark.slow
def test_no_engine_outlives_an_agent_that_is_killed_while_it_starts(
    start: Start, hub: FakeHub
) -> None:
    process = start_engine(start)
    (engine,) = eventually(lambda: engines_of(process), what="the engine's start")
    process.kill()
    process.wait(60)
    eventually(lambda: not engine.is_running(), what="the engine's end")


@pytest.mark.slow
def test_a_missing_model_file_is_a_failed_replica(start: Start, hub: FakeHub) -> None:
    start("--model-file", "/nowhere/tiny.gguf")
    body = hub.wait_until(REPLICAS, lambda body: body["replicas"][0]["state"] == "failed")
    assert "/nowhere/tiny.gguf" in body["replicas"][0]["error"]
    assert body["replicas"][0]["model_name"] == "tiny"


@pytest.mark.slow
def test_the_engine_s_log_reaches_the_hub_without_its_key(start: Start, hub: FakeHub) -> None:
    start_engine(start)
    replica = wait_for_ready(hub)
    body = hub.wait_until("/agent/v1/logs", lambda body: body["source"] == "engine")
    assert body["model_name"] == "smollm2-135m-instruct"
    assert replica["api_key"] not in json.dumps(body)


@pytest.mark.slow
def test_a_model_that_the_hub_sends_is_served_beside_the_first(
    start: Start, hub: FakeHub, tmp_path: Path
) -> None:
    content = default_model_file().read_bytes()
    files = FileServer(content=content)
    with FakeServer(files.handle) as server:
        hub.want(
            downloads=[
                {
                    "id": "d1",
                    "model_name": "second",
                    "version": "1",
                    "download_url": server.url + "/second.gguf",
                    "checksum": hashlib.sha256(content).hexdigest(),
                    "expected_size": len(content),
                    "engine_type": 6,
                }
            ],
            models=[{"model_name": "second", "engine": "llamacpp", "file": "second.gguf"}],
        )
        start_engine(start)

        def both_ready(body: Any) -> bool:
            states = {one["model_name"]: one["state"] for one in body["replicas"]}
            return states == {"smollm2-135m-instruct": "ready", "second": "ready"}

        body = hub.wait_until(REPLICAS, both_ready, seconds=60)
    second = next(one for one in body["replicas"] if one["model_name"] == "second")
    assert chat(second, key=second["api_key"])["choices"]
    # What the hub no longer wants goes; what the owner runs stays.
    hub.want(models=[], downloads=[])

    def first_alone() -> bool:
        replicas = hub.of(REPLICAS)[-1].body["replicas"]
        return [one["model_name"] for one in replicas] == ["smollm2-135m-instruct"]

    eventually(first_alone, what="the end of the second engine")
    assert hub.of(REPLICAS)[-1].body["replicas"][0]["state"] == "ready"


@pytest.mark.slow
def test_a_hub_elsewhere_reaches_the_engine_by_the_relay(start: Start, hub: FakeHub) -> None:
    relay = hub.relay = FakeRelayHub()
    start_engine(start, "--mode", "relay")
    replica = wait_for_ready(hub)
    assert (replica["endpoint_url"], replica["api_key"]) == (None, None)
    relay.wait_for_agent()
    body = {
        "model": replica["served_name"],
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 4,
        "stream": True,
    }
    stream = relay.ask(model_name=replica["model_name"], body=json.dumps(body).encode())
    relay.wait_for(stream, RESPONSE_END, seconds=60)
    assert json.loads(relay.wait_for(stream, RESPONSE))["status"] == 200
    assert relay.body(stream).endswith(b"data: [DONE]\n\n")
    assert relay.tokens == [hub.node_token]
    relay.drop()
