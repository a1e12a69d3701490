"""Writes the figures down: tables for people, JSON for everything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.figures import (
    Measure,
    Results,
    cpu_per_request,
    cpu_per_token,
    faults,
    percentile,
    rate,
)
from benchmarks.goals import MEGABYTE, Verdict, memory_per_stream
from benchmarks.scenarios import Scenario

COLUMNS: tuple[tuple[str, str, Measure], ...] = (
    ("TTFT p50", "middle", percentile("ttft_ms", "p50")),
    ("p95", "middle", percentile("ttft_ms", "p95")),
    ("added p50", "added", percentile("ttft_ms", "p50")),
    ("added p95", "added", percentile("ttft_ms", "p95")),
    ("per token p50", "added", percentile("token_ms", "p50")),
    ("p95 ", "added", percentile("token_ms", "p95")),
    ("tokens/s", "middle", rate("tokens_per_s")),
    ("requests/s", "middle", rate("requests_per_s")),
    ("CPU ms/req", "middle", cpu_per_request),
    ("CPU µs/token", "middle", cpu_per_token),
)


def number(value: float | None) -> str:
    """A figure with three significant digits, or a dash."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An aligned Markdown table; the first column is text, the others are figures."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [_line(head, widths), _line(["-" * width for width in widths], widths)]
    return "\n".join(lines + [_line(row, widths) for row in rows])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    others = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "| " + " | ".join([first, *others]) + " |"


def scenario_table(results: Results, scenario: Scenario, targets: Sequence[str]) -> str:
    """All gateways under one load. Times in ms; "added" and "per token" are over direct."""
    rows = []
    for target in targets:
        reports = results.of(scenario.name, target)
        if not reports:
            continue
        cells = [target]
        for name, kind, measure in COLUMNS:
            look_up = results.added if kind == "added" else results.middle
            no_gateway = target == "direct" and (kind == "added" or name.startswith("CPU"))
            value = None if no_gateway else look_up(scenario.name, target, measure)
            cells.append(number(value))
        cells.append(str(sum(faults(report) for report in reports)))
        cells.append(str(sum(report["unfinished"] for report in reports)))
        rows.append(cells)
    head = [scenario.name, *(name for name, _, _ in COLUMNS), "errors", "cut off"]
    return f"{scenario.title}\n\n{table(head, rows)}"


def role_table(results: Results, scenarios: Sequence[Scenario], target: str) -> str:
    """Where the gateway's CPU goes: each role's share, by load."""
    roles = sorted(
        {role for s in scenarios for r in results.of(s.name, target) for role in r["cpu"]}
    )
    rows = []
    for scenario in scenarios:
        if not results.of(scenario.name, target):
            continue
        values = [results.middle(scenario.name, target, _of_role(role)) for role in roles]
        rows.append([scenario.name, *(number(value) for value in values)])
    return f"CPU µs a token by role, {target}\n\n" + table(["load", *roles], rows)


def _of_role(role: str) -> Measure:
    return lambda report: cpu_per_token(report, role)


def memory_table(results: Results, targets: Sequence[str]) -> str:
    """PSS of the processes: before any load, and after or during the heaviest one seen."""
    rows = []
    for target in targets:
        reports = [
            r
            for by_target in results.reports.values()
            for r in by_target.get(target, {}).values()
        ]
        for role in sorted({role for report in reports for role in report["memory"]}):
            before = min(max(r["memory_before"][role], default=0) for r in reports)
            largest = max(max(r["memory"][role], default=0) for r in reports)
            whole = max(sum(r["memory"][role]) for r in reports)
            count = max(len(r["memory"][role]) for r in reports)
            sizes = (number(size / MEGABYTE) for size in (before, largest, whole))
            rows.append([f"{target} {role}", str(count), *sizes])
        growth = results.middle("hold512", target, memory_per_stream)
        if growth is not None:
            rows.append([f"{target}, kB a held stream", "", "", number(growth), ""])
    head = ["memory, MB PSS", "processes", "largest at start", "largest seen", "all together"]
    return table(head, rows)


def goal_table(verdicts: Sequence[Verdict]) -> str:
    """Every goal with its figure: met, short (and why), or not measured."""
    rows = [[v.goal, v.limit, f"{number(v.value)} {v.unit}", verdict_text(v)] for v in verdicts]
    return table(["goal", "limit", "measured", "verdict"], rows)


def verdict_text(verdict: Verdict) -> str:
    """`met`, `short: reason` or `not measured`."""
    if verdict.met is None:
        return "not measured"
    return "met" if verdict.met else f"short: {verdict.reason}"


def as_json(
    results: Results, verdicts: Sequence[Verdict], about: dict[str, Any]
) -> dict[str, Any]:
    """Everything that was measured, each repetition by itself."""
    goals = [{**asdict(v), "verdict": verdict_text(v)} for v in verdicts]
    return {"about": about, "goals": goals, "reports": results.reports}
