"""What the hub costs: direct, through Weft and through LiteLLM, side by side in one run.

    python -m benchmarks.gateway [--quick] [--only c64,short] [--targets direct,weft] [--json FILE]

All loads go to 127.0.0.1 and end by themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import (
    fake_engine,
    goals,
    litellm,
    measure,
    native_tools,
    processes,
    report,
    scenarios,
    weft,
)
from benchmarks.fake_engine import MODELS, FakeEngine
from benchmarks.figures import Results, faults
from benchmarks.processes import Stack
from benchmarks.scenarios import SCENARIOS, Scenario

TARGETS = ("direct", "weft", "litellm", "litellm-2w")
OUTPUT = native_tools.BUILD / "gateway.json"
IDLE_SECONDS = 2.0
WARM_UP = Scenario("warm-up", "", 8, 8, "bench-0ms", requests=64, limit=30.0)


@dataclass
class Run:
    """One run of the benchmark: what is up, and what was found so far."""

    engine: FakeEngine
    stacks: list[Stack]
    results: Results = field(default_factory=Results)
    missing: dict[str, str] = field(default_factory=dict)
    idle_cpu: dict[str, dict[str, float]] = field(default_factory=dict)

    def measure(self, scenario: Scenario, stack: Stack, repetition: int) -> None:
        """Put one load on one gateway, with the others that bear it frozen."""
        load = scenarios.for_peer(scenario) if stack.name.startswith("litellm") else scenario
        stack.resume()
        found = scenarios.run(load, stack, lambda: self.engine.stats()["active"])
        stack.pause()
        self.results.add(scenario.name, stack.name, repetition, found)
        ttft = found["ttft_ms"] or {"p50": float("nan")}
        say(
            f"  {scenario.name:13} {stack.name:11} TTFT {ttft['p50']:8.2f} ms, "
            f"{found['requests_per_s']:8.1f} requests/s, {faults(found)} errors, "
            f"{found['unfinished']} cut off {found['first_error']}"
        )


def say(text: str) -> None:
    """Tell what happens, at once."""
    print(text, flush=True)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    names = ", ".join(scenario.name for scenario in SCENARIOS)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gateway",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short repetition, to see that it works"
    )
    parser.add_argument("--only", help=f"loads to run, comma-separated: {names}")
    parser.add_argument(
        "--targets",
        default=",".join(TARGETS),
        help="gateways to measure (default: %(default)s)",
    )
    parser.add_argument("--skip-litellm", action="store_true", help="leave the peer out")
    parser.add_argument("--repetitions", type=int, help="interleaved repetitions (default 3)")
    parser.add_argument(
        "--web-workers", type=int, default=1, help="web processes of Weft (default 1)"
    )
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument(
        "--url", help="one more gateway that runs already, before an engine of yours"
    )
    parser.add_argument("--key", default="", help="its bearer token")
    parser.add_argument("--pids", default="", help="its processes, as role=pid,role=pid")
    parser.add_argument(
        "--engine-port", type=int, default=0, help="fixed port of the fake engine"
    )
    parser.add_argument(
        "--json", type=Path, default=OUTPUT, help="where the figures go (%(default)s)"
    )
    return parser.parse_args(argv)


def chosen_scenarios(options: argparse.Namespace) -> list[Scenario]:
    """The loads to run. Raises SystemExit for a name that is none."""
    wanted = options.only.split(",") if options.only else None
    unknown = set(wanted or ()) - {scenario.name for scenario in SCENARIOS}
    if unknown:
        raise SystemExit(f"no such load: {', '.join(sorted(unknown))}")
    chosen = [
        s
        for s in SCENARIOS
        if (s.name in wanted if wanted else s.in_quick or not options.quick)
    ]
    return [scenarios.quickened(s) for s in chosen] if options.quick else chosen


def external_stack(options: argparse.Namespace) -> Stack:
    """The gateway that --url names."""
    roles: dict[str, list[int]] = {}
    for pair in filter(None, options.pids.split(",")):
        role, _, pid = pair.partition("=")
        roles.setdefault(role, []).append(int(pid))
    return Stack("other", options.url.rstrip("/"), options.key, roles)


def start_targets(options: argparse.Namespace, run: Run) -> None:
    """Start every gateway that is asked for; what cannot start is said and left out."""
    wanted = [name for name in options.targets.split(",") if name]
    if options.skip_litellm:
        wanted = [name for name in wanted if not name.startswith("litellm")]
    url = run.engine.base_url
    starters: dict[str, Callable[[], Stack]] = {
        "direct": lambda: Stack("direct", url),
        "weft": lambda: weft.start(
            url, MODELS, web_workers=options.web_workers, database=options.database
        ),
        "litellm": lambda: litellm.start(url, MODELS),
        "litellm-2w": lambda: litellm.start(url, MODELS, workers=2),
    }
    for name in wanted:
        if name not in starters:
            raise SystemExit(f"no such gateway: {name}")
        started = time.monotonic()
        try:
            stack = starters[name]()
        except (
            weft.NotBuiltError,
            processes.NotReadyError,
            subprocess.CalledProcessError,
        ) as error:
            run.missing[name] = str(error)
            say(f"{name} is left out: {error}")
            continue
        run.stacks.append(stack)
        say(f"{name} is ready after {time.monotonic() - started:.1f} s at {stack.base_url}")
        warm_up(run, stack)
    if options.url:
        run.stacks.append(external_stack(options))


def warm_up(run: Run, stack: Stack) -> None:
    """Let it load what it loads lazily, then see what it uses when it is idle."""
    scenarios.run(WARM_UP, stack, lambda: 0)
    scenarios.run(replace(WARM_UP, stream=False), stack, lambda: 0)
    before = measure.cpu_seconds(stack.pids_by_role)
    time.sleep(IDLE_SECONDS)
    used = measure.difference(before, measure.cpu_seconds(stack.pids_by_role))
    run.idle_cpu[stack.name] = {role: value / IDLE_SECONDS for role, value in used.items()}
    stack.pause()


def family(name: str) -> str:
    """The name under which a load lists its gateways."""
    return name if name in {*TARGETS, "other"} else "other"


def measure_all(run: Run, loads: Sequence[Scenario], repetitions: int) -> None:
    """All loads on all gateways, interleaved, so that a noisy minute hits everybody."""
    for repetition in range(repetitions):
        say(f"repetition {repetition + 1} of {repetitions}")
        for scenario in loads:
            for stack in run.stacks:
                name = family(stack.name)
                once = name in scenario.first_repetition_only and repetition > 0
                if name in scenario.targets and not once:
                    run.measure(scenario, stack, repetition)


def machine(options: argparse.Namespace, run: Run, seconds: float) -> dict[str, Any]:
    """Where and how the figures came about."""
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": revision.stdout.strip(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "peer": litellm.REQUIREMENT,
        "quick": options.quick,
        "web_workers": options.web_workers,
        "database": options.database,
        "took_seconds": round(seconds, 1),
        "missing": run.missing,
        "idle_cpu": run.idle_cpu,
    }


def write_results(
    options: argparse.Namespace, run: Run, loads: Sequence[Scenario], seconds: float
) -> None:
    """Print the tables and write the JSON."""
    names = [stack.name for stack in run.stacks]
    measured = [scenario for scenario in loads if scenario.name in run.results.reports]
    for scenario in measured:
        say("\n" + report.scenario_table(run.results, scenario, names))
    for name in names:
        if name in {"weft", "other"}:
            say("\n" + report.role_table(run.results, measured, name))
    say("\n" + report.memory_table(run.results, [name for name in names if name != "direct"]))
    verdicts = goals.judge(run.results)
    say("\n" + report.goal_table(verdicts))
    about = machine(options, run, seconds)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report.as_json(run.results, verdicts, about), indent=1))
    say(
        f"\n{seconds:.0f} s, all figures in {options.json}; machine load {about['load_average'][0]:.1f}"
    )
    for name, why in run.missing.items():
        say(f"{name} was not measured: {why}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    options = arguments(argv)
    loads = chosen_scenarios(options)
    started = time.monotonic()
    try:
        engine = fake_engine.start(native_tools.BUILD / "fake_engine.log", options.engine_port)
    except (native_tools.NoCompilerError, processes.NotReadyError) as error:
        say(f"The benchmark cannot run: {error}")
        return 2
    run = Run(engine, [])
    try:
        start_targets(options, run)
        measure_all(run, loads, options.repetitions or (1 if options.quick else 3))
        write_results(options, run, loads, time.monotonic() - started)
    finally:
        for stack in run.stacks:
            stack.stop()
        engine.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
