"""TGI by docker, with a `docker` on PATH that notes what it was asked."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config import TgiOptions
from agent.launchers.base import EngineNotStarted, Health, ReplicaState
from agent.launchers.tgi import TgiLauncher, read_line
from agent.logs import LogBuffer, Redactor
from tests.agent.conditions import eventually

# Plays docker's client: `run` copies its orders, writes TGI's log and serves /health and
# /info when told to; `stop` ends the `run`.
FAKE_DOCKER = """#!{python}
import http.server, json, os, signal, sys, threading, time
folder = {folder!r}
arguments = sys.argv[1:]
with open(folder + "/calls", "a") as calls:
    calls.write(json.dumps(arguments) + "\\n")
if arguments[0] == "stop":
    os.kill(int(open(folder + "/pid").read()), signal.SIGTERM)
if arguments[0] != "run":
    sys.exit(0)
path = arguments[arguments.index("--env-file") + 1]
with open(folder + "/env", "w") as copy:
    copy.write(open(path).read() + "MODE=" + oct(os.stat(path).st_mode))
with open(folder + "/environment", "w") as copy:
    json.dump(dict(os.environ), copy)
with open(folder + "/pid.tmp", "w") as file:
    file.write(str(os.getpid()))
os.rename(folder + "/pid.tmp", folder + "/pid")
def say(message):
    print(json.dumps({{"timestamp": "t", "level": "INFO", "fields": {{"message": message}}}}), flush=True)
say("Args {{ model_id: \\"m\\", api_key: Some(\\"" + [l for l in open(path) if l.startswith("API_KEY=")][0][8:].strip() + "\\") }}")
say("Starting check and download process for m")
say("Download: [1/4] -- ETA: 0:01:03")
if os.path.exists(folder + "/fail"):
    print("Error: DownloadError", flush=True)
    sys.exit(1)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"{{}}"
        if self.path == "/info":
            body = b'{{"model_id": "m", "max_concurrent_requests": 16, "max_total_tokens": 2048, "version": "3.3.7"}}'
        self.send_response(200 if self.path in ("/health", "/info") else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
while not os.path.exists(folder + "/go"):
    time.sleep(0.02)
port = int(arguments[arguments.index("-p") + 1].split(":")[1])
server = http.server.HTTPServer(("127.0.0.1", port), Handler)
say("Connected")
server.serve_forever()
"""


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    folder = tmp_path / "docker"
    folder.mkdir()
    program = folder / "docker"
    program.write_text(FAKE_DOCKER.format(python=sys.executable, folder=str(folder)))
    program.chmod(0o755)
    return folder


@pytest.fixture
def logs() -> LogBuffer:
    return LogBuffer(Redactor())


@pytest.fixture
def launcher(docker: Path, logs: LogBuffer, tmp_path: Path) -> Iterator[TgiLauncher]:
    launcher = make_launcher(docker, logs, tmp_path)
    yield launcher
    launcher.stop(seconds=5)


def make_launcher(
    docker: Path, logs: LogBuffer, folder: Path, options: TgiOptions | None = None
) -> TgiLauncher:
    return TgiLauncher(
        "HuggingFaceH4/zephyr-7b",
        options
        or TgiOptions(image="tgi:1", volume="/data/hf", hf_token="hf_secretsecretsecret"),
        folder=folder,
        environment={"PATH": f"{docker}{os.pathsep}/usr/bin:/bin"},
        logs=logs,
        on_change=lambda: None,
        is_direct=False,
    )


def calls_of(docker: Path) -> list[list[str]]:
    return [json.loads(line) for line in (docker / "calls").read_text().splitlines()]


def wait_for_run(docker: Path) -> list[str]:
    eventually(lambda: (docker / "pid").exists(), what="docker run")
    return next(call for call in calls_of(docker) if call[0] == "run")


def wait_for_state(launcher: TgiLauncher, state: ReplicaState) -> Health:
    health: list[Health] = []

    def is_there() -> bool:
        health[:] = [launcher.poll()]
        return health[0].state is state

    eventually(is_there, what=state)
    return health[0]


def test_the_command_line_is_exactly_this(launcher: TgiLauncher, docker: Path) -> None:
    launcher.start()
    run = wait_for_run(docker)
    env_file = run[run.index("--env-file") + 1]
    published = run[run.index("-p") + 1]
    assert run == [
        "run", "--rm", "--name", launcher.container, "--gpus", "all", "--shm-size", "1g",
        "-p", published, "-v", "/data/hf:/data", "--env-file", env_file,
        "--stop-timeout", "180", "tgi:1",
    ]  # fmt: skip
    address, port, inside = published.split(":")
    assert (address, inside) == ("127.0.0.1", "80")
    assert int(port) > 1023
    assert calls_of(docker)[0] == ["rm", "--force", launcher.container]


def test_settings_go_by_a_file_that_only_the_owner_reads(
    launcher: TgiLauncher, docker: Path
) -> None:
    launcher.start()
    run = wait_for_run(docker)
    lines = dict(line.split("=", 1) for line in (docker / "env").read_text().splitlines())
    assert lines.pop("API_KEY")
    assert stat.S_IMODE(int(lines.pop("MODE"), 8)) == 0o600
    assert lines == {
        "MODEL_ID": "HuggingFaceH4/zephyr-7b",
        "HF_TOKEN": "hf_secretsecretsecret",
        "USAGE_STATS": "off",
        "JSON_OUTPUT": "true",
    }
    assert "hf_secret" not in " ".join(run)
    assert "hf_secret" not in (docker / "environment").read_text()


def test_without_gpus_docker_is_not_asked_for_any(
    docker: Path, logs: LogBuffer, tmp_path: Path
) -> None:
    launcher = make_launcher(docker, logs, tmp_path, TgiOptions(gpus=None))
    assert "--gpus" not in launcher.command("docker", 1)


def test_phases_and_lines_are_told_while_it_starts(
    launcher: TgiLauncher, docker: Path, logs: LogBuffer
) -> None:
    launcher.start()
    eventually(lambda: launcher.phase == "downloading the weights [1/4]", what="the phase")
    assert launcher.poll() == Health(ReplicaState.STARTING)
    messages = [line.message for line in logs.take()]
    assert "TGI: downloading the weights [1/4]" in messages
    assert "Download: [1/4] -- ETA: 0:01:03" in messages
    key = (docker / "env").read_text().split("API_KEY=")[1].split("\n")[0]
    assert key not in " ".join(messages)


def test_it_is_ready_when_its_port_answers(launcher: TgiLauncher, docker: Path) -> None:
    launcher.start()
    run = wait_for_run(docker)
    (docker / "go").touch()
    health = wait_for_state(launcher, ReplicaState.READY)
    replica = launcher.describe(health)
    assert (replica["concurrency"], replica["context_tokens"]) == (16, 2048)
    assert replica["served_name"] == "HuggingFaceH4/zephyr-7b"
    assert replica["endpoint_url"] is None
    # The file with the token isn't needed any longer.
    assert not Path(run[run.index("--env-file") + 1]).exists()


def test_a_start_that_fails_tells_its_last_words_and_where_it_was(
    launcher: TgiLauncher, docker: Path
) -> None:
    (docker / "fail").touch()
    launcher.start()
    health = wait_for_state(launcher, ReplicaState.FAILED)
    assert health.error is not None
    assert "Error: DownloadError" in health.error
    assert "downloading the weights" in health.error


def test_stop_lets_docker_drain_it(launcher: TgiLauncher, docker: Path) -> None:
    launcher.start()
    wait_for_run(docker)
    launcher.stop(seconds=10)
    assert calls_of(docker)[-1] == ["stop", "--time", "180", launcher.container]
    assert launcher.poll().state is ReplicaState.STOPPED


def test_a_leftover_of_the_same_folder_and_model_has_the_same_name(
    docker: Path, logs: LogBuffer, tmp_path: Path
) -> None:
    one = make_launcher(docker, logs, tmp_path)
    again = make_launcher(docker, logs, tmp_path)
    elsewhere = make_launcher(docker, logs, docker)
    assert one.container == again.container
    assert one.container != elsewhere.container


def test_without_docker_the_way_out_is_told(logs: LogBuffer, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    launcher = TgiLauncher(
        "m", TgiOptions(), folder=tmp_path, environment={"PATH": str(empty)}, logs=logs,
        on_change=lambda: None, is_direct=False,
    )  # fmt: skip
    with pytest.raises(EngineNotStarted, match="--endpoint"):
        launcher.start()


def test_both_json_shapes_and_plain_lines_are_read() -> None:
    launcher_line = '{"timestamp":"t","level":"WARN","fields":{"message":"slow"},"target":"x"}'
    router_line = '{"timestamp":"t","level":"INFO","message":"Connected","target":"x"}'
    assert read_line(launcher_line) == ("warning", "slow")
    assert read_line(router_line) == ("info", "Connected")
    assert read_line("Error: ShardFailed ERROR") == ("error", "Error: ShardFailed ERROR")
