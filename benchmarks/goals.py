"""The goals of the gateway, each with the figure that it is held against."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.figures import (
    Measure,
    Report,
    Results,
    cpu_per_request,
    cpu_per_token,
    faults,
    percentile,
    rate,
)

TTFT = percentile("ttft_ms", "p50")
MEGABYTE = 1_000_000.0


@dataclass(frozen=True)
class Verdict:
    """One goal, what was measured, and whether that meets it (None: not measured)."""

    goal: str
    limit: str
    value: float | None
    unit: str
    met: bool | None
    reason: str = ""


def _at_most(goal: str, value: float | None, limit: float, unit: str, why: str = "") -> Verdict:
    met = None if value is None else value <= limit
    reason = "" if value is None or met else f"{value / limit:.1f} times the goal{why}"
    return Verdict(goal, f"≤ {limit:g} {unit}", value, unit, met, reason)


def _at_least(goal: str, value: float | None, limit: float, unit: str) -> Verdict:
    met = None if value is None else value >= limit
    reason = "" if value is None or met else f"{value / limit:.0%} of the goal"
    return Verdict(goal, f"≥ {limit:g}{unit}", value, unit, met, reason)


def _shares(results: Results, scenario: str, target: str) -> str:
    reports = results.of(scenario, target)
    totals: dict[str, float] = {}
    for report in reports:
        for role, used in report["cpu"].items():
            totals[role] = totals.get(role, 0.0) + used
    whole = sum(totals.values())
    if not whole:
        return ""
    parts = sorted(totals.items(), key=lambda item: -item[1])
    return "; CPU: " + ", ".join(f"{role} {used / whole:.0%}" for role, used in parts)


def _largest(role: str) -> Measure:
    def measure(report: Report) -> float | None:
        sizes = report["memory"].get(role)
        return max(sizes) / MEGABYTE if sizes else None

    return measure


def memory_per_stream(report: Report) -> float | None:
    """Growth of all processes while the streams were held, in kB a stream."""
    if not report["held"]:
        return None
    before = sum(sum(sizes) for sizes in report["memory_before"].values())
    during = sum(sum(sizes) for sizes in report["memory"].values())
    return (during - before) / 1000 / float(report["peak_busy"])


def _held(results: Results, target: str) -> Verdict:
    reports = results.of("hold512", target)
    goal, limit = "512 streams held, none dropped", "0 lost"
    if not reports:
        return Verdict(goal, limit, None, "lost", None)
    lost = sum(faults(report) + report["unfinished"] for report in reports)
    all_held = all(report["held"] for report in reports)
    errors = next((r["first_error"] for r in reports if r["first_error"]), "")
    reason = "" if all_held else "the engine never saw all of them at once"
    return Verdict(goal, limit, float(lost), "lost", lost == 0 and all_held, errors or reason)


def judge(results: Results, target: str = "weft", peer: str = "litellm") -> list[Verdict]:
    """Every goal, in order of importance."""
    c64, short = _shares(results, "c64", target), _shares(results, "short", target)
    torbiz = results.middle("torbiz-one", target, TTFT)
    openai = results.middle("one", target, TTFT)
    return [
        _at_most("added TTFT p50, 1 stream", results.added("c1", target, TTFT), 6, "ms"),
        _at_most(
            "added TTFT p50, 64 at once",
            results.added("burst64", target, TTFT),
            20,
            "ms",
            _shares(results, "burst64", target),
        ),
        _at_most("added TTFT p50, 256 streams", results.added("c256", target, TTFT), 12, "ms"),
        _at_most(
            "CPU a token, 64 streams",
            results.middle("c64", target, cpu_per_token),
            130,
            "µs",
            c64,
        ),
        _at_most(
            "CPU a short request",
            results.middle("short", target, cpu_per_request),
            5,
            "ms",
            short,
        ),
        _at_least(
            "TTFT below the peer's, 64 streams",
            results.ratio("c64", target, peer, TTFT),
            50,
            "×",
        ),
        _at_least(
            "CPU a token below the peer's, 64 streams",
            results.ratio("c64", target, peer, cpu_per_token),
            8,
            "×",
        ),
        _at_least(
            "short requests/s above the peer's",
            results.ratio("short", peer, target, rate("requests_per_s")),
            5,
            "×",
        ),
        _held(results, target),
        _at_most(
            "largest web process, 512 streams",
            results.middle("hold512", target, _largest("web")),
            120,
            "MB",
        ),
        _at_most(
            "largest worker process, 512 streams",
            results.middle("hold512", target, _largest("worker")),
            120,
            "MB",
        ),
        _at_most("torbiz TTFT above /v1's, one by one", _difference(torbiz, openai), 1, "ms"),
    ]


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second
