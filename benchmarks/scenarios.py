"""The loads of the gateway benchmark, and how one of them is put on one gateway."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import measure, native_tools
from benchmarks.processes import Stack

PROMPT = "Say in one sentence why the sky is blue, and in a second one why it is red at dusk."
SETTLE_SECONDS = 0.5  # book-keeping after the last byte belongs to the requests measured
OPENAI, TORBIZ = "openai", "torbiz"
PATHS = {OPENAI: "/v1/chat/completions", TORBIZ: "/inference/stream/"}


@dataclass(frozen=True)
class Scenario:
    """One load: how many streams of what, for how long.

    With `seconds` it is a closed loop whose starts are spread over `ramp` seconds and whose
    first `warmup` seconds do not count; with `bursts` all ask at once, that many times; with
    `requests` that many are sent in all.
    """

    name: str
    title: str
    concurrency: int
    tokens: int
    model: str
    seconds: float = 0.0
    warmup: float = 0.0
    ramp: float = 0.0
    bursts: int = 0
    requests: int = 0
    stream: bool = True
    dialect: str = OPENAI
    limit: float = 60.0
    hold: bool = False
    peer: dict[str, float] = field(default_factory=dict)
    targets: tuple[str, ...] = ("direct", "weft", "litellm", "other")
    first_repetition_only: tuple[str, ...] = ()
    in_quick: bool = True


def _streams(count: int, seconds: float, **more: Any) -> Scenario:
    return Scenario(
        name=f"c{count}",
        title=f"{count} stream{'s' if count > 1 else ''}, 64 tokens 10 ms apart",
        concurrency=count,
        tokens=64,
        model="bench-10ms",
        seconds=seconds,
        **more,
    )


ALL = ("direct", "weft", "litellm", "litellm-2w", "other")
SCENARIOS = (
    _streams(1, 4.0),
    _streams(16, 4.0, warmup=1.3, ramp=0.6, peer={"seconds": 6.0, "warmup": 2.0}),
    _streams(
        64,
        5.0,
        warmup=1.3,
        ramp=0.6,
        peer={"seconds": 9.0, "warmup": 3.0},
        targets=ALL,
        first_repetition_only=("litellm-2w",),
    ),
    Scenario(
        name="burst64",
        title="64 streams that arrive at once, 64 tokens 10 ms apart",
        concurrency=64,
        tokens=64,
        model="bench-10ms",
        bursts=4,
        peer={"bursts": 1},
    ),
    Scenario(
        name="c256",
        title="256 streams, 64 tokens 50 ms apart",
        concurrency=256,
        tokens=64,
        model="bench-50ms",
        seconds=8.0,
        warmup=3.3,
        ramp=3.2,
        peer={"limit": 25.0},
        first_repetition_only=("litellm",),
        in_quick=False,
    ),
    Scenario(
        name="short",
        title="short requests, 1 token, whole JSON, 64 at a time",
        concurrency=64,
        tokens=1,
        model="bench-0ms",
        seconds=3.5,
        warmup=1.0,
        stream=False,
        peer={"seconds": 6.0, "warmup": 2.0},
        targets=ALL,
        first_repetition_only=("litellm-2w",),
    ),
    Scenario(
        name="short-stream",
        title="short requests, 1 token, streamed, 64 at a time",
        concurrency=64,
        tokens=1,
        model="bench-0ms",
        seconds=3.5,
        warmup=1.0,
        peer={"seconds": 6.0, "warmup": 2.0},
        targets=ALL,
        first_repetition_only=("litellm-2w",),
    ),
    replace(
        _streams(64, 5.0, warmup=1.3, ramp=0.6),
        name="torbiz64",
        title="64 streams of /inference/stream/, 64 tokens 10 ms apart",
        dialect=TORBIZ,
        targets=("weft",),
    ),
    # One after the other, so that no queue hides the difference between two doors.
    *(
        Scenario(
            name=name,
            title=f"one short stream of {path} after the other",
            concurrency=1,
            tokens=1,
            model="bench-0ms",
            seconds=4.0,
            warmup=1.0,
            dialect=dialect,
            targets=("weft",),
        )
        for name, path, dialect in (
            ("one", "/v1/chat/completions", OPENAI),
            ("torbiz-one", "/inference/stream/", TORBIZ),
        )
    ),
    Scenario(
        name="hold512",
        title="512 streams held, 100 tokens 100 ms apart",
        concurrency=512,
        tokens=100,
        model="bench-100ms",
        requests=512,
        ramp=3.0,
        hold=True,
        targets=("weft", "other"),
    ),
)


def body_of(scenario: Scenario) -> dict[str, Any]:
    """The JSON that is sent."""
    if scenario.dialect == TORBIZ:
        return {
            "question_text": PROMPT,
            "desired_model": scenario.model,
            "max_tokens": scenario.tokens,
        }
    return {
        "model": scenario.model,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": scenario.tokens,
        "temperature": 0.7,
        "stream": scenario.stream,
    }


def _command(scenario: Scenario, stack: Stack, body: Path) -> list[str]:
    header = f"Authorization: Bearer {stack.api_key}" if stack.api_key else ""
    if scenario.dialect == TORBIZ:
        header = stack.torbiz_header
    options: dict[str, Any] = {
        "url": stack.base_url + PATHS[scenario.dialect],
        "header": header,
        "body": body,
        "tokens": scenario.tokens,
        "concurrency": scenario.concurrency,
        "seconds": scenario.seconds,
        "warmup": scenario.warmup,
        "ramp": scenario.ramp,
        "bursts": scenario.bursts,
        "requests": scenario.requests,
        "limit": scenario.limit,
    }
    pairs = [(f"--{name}", str(value)) for name, value in options.items() if value]
    return [str(native_tools.tool("loadgen")), *(part for pair in pairs for part in pair)]


def _watch_memory(
    stack: Stack, all_held: Callable[[], bool], seconds: float, found: dict[str, Any]
) -> threading.Thread:
    def wait_and_read() -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if all_held():
                found["memory"] = measure.memory(stack.pids_by_role)
                found["held"] = all_held()
                return
            time.sleep(0.1)

    thread = threading.Thread(target=wait_and_read, daemon=True)
    thread.start()
    return thread


def run(scenario: Scenario, stack: Stack, active_streams: Callable[[], int]) -> dict[str, Any]:
    """Put the load on the gateway once; returns the load's report with CPU and memory added.

    `active_streams` tells how many streams the engine is serving. CPU is in seconds by
    role, memory in bytes of PSS by role.
    """
    with tempfile.TemporaryDirectory(prefix="weft-bench-") as folder:
        body = Path(folder) / "body.json"
        body.write_text(json.dumps(body_of(scenario), separators=(",", ":")))
        memory_before = measure.memory(stack.pids_by_role)
        held: dict[str, Any] = {}
        cpu_before = measure.cpu_seconds(stack.pids_by_role)
        watcher = _watch_memory(
            stack,
            lambda: active_streams() >= scenario.concurrency,
            scenario.limit if scenario.hold else 0.0,
            held,
        )
        finished = subprocess.run(
            _command(scenario, stack, body), capture_output=True, text=True, check=True
        )
    time.sleep(SETTLE_SECONDS)
    report: dict[str, Any] = json.loads(finished.stdout)
    report["cpu"] = measure.difference(cpu_before, measure.cpu_seconds(stack.pids_by_role))
    watcher.join(1.0)
    report["memory_before"] = memory_before
    report["memory"] = held.get("memory") or measure.memory(stack.pids_by_role)
    report["held"] = bool(held.get("held"))
    return report


def for_peer(scenario: Scenario) -> Scenario:
    """The same load with the longer or shorter times that a saturated peer needs."""
    changes: dict[str, Any] = dict(scenario.peer)
    if "bursts" in changes:
        changes["bursts"] = int(changes["bursts"])
    return replace(scenario, **changes)


def quickened(scenario: Scenario) -> Scenario:
    """A shorter version for `--quick`: enough to see that it works, too short to quote."""
    return replace(
        scenario,
        seconds=min(scenario.seconds, scenario.warmup + 2.0) if scenario.seconds else 0.0,
        bursts=min(scenario.bursts, 2),
        tokens=min(scenario.tokens, 64),
    )
