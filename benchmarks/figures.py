"""Turns the reports of repeated loads into figures: medians, differences, ratios."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

Report = dict[str, Any]
Measure = Callable[[Report], float | None]


def percentile(sample: str, rank: str) -> Measure:
    """A percentile of `ttft_ms`, `token_ms` or `duration_ms`, in milliseconds."""
    return lambda report: report[sample][rank] if report.get(sample) else None


def rate(name: str) -> Measure:
    """`requests_per_s` or `tokens_per_s`."""
    return lambda report: float(report[name])


def cpu_per_token(report: Report, role: str | None = None) -> float | None:
    """CPU of all of the gateway's processes, or one role's, in microseconds a token."""
    return _cpu(report, role) * 1e6 / report["tokens"] if report["tokens"] else None


def cpu_per_request(report: Report, role: str | None = None) -> float | None:
    """The same in milliseconds a request that was answered; None when some were cut off."""
    if report["unfinished"] or not report["completed"]:
        return None
    return _cpu(report, role) * 1e3 / float(report["completed"])


def _cpu(report: Report, role: str | None) -> float:
    return float(sum(report["cpu"].values()) if role is None else report["cpu"].get(role, 0.0))


def faults(report: Report) -> int:
    """Requests that went wrong in any way but being cut off by our own time limit."""
    return int(report["failed"] + report["dropped"] + report["short"])


@dataclass
class Results:
    """Every report, by scenario, target and repetition (None: not measured that time)."""

    reports: dict[str, dict[str, dict[int, Report]]] = field(default_factory=dict)

    def add(self, scenario: str, target: str, repetition: int, report: Report) -> None:
        """Keep one report."""
        self.reports.setdefault(scenario, {}).setdefault(target, {})[repetition] = report

    def of(self, scenario: str, target: str) -> list[Report]:
        """The reports of one load on one gateway, in order of repetition."""
        return list(self.reports.get(scenario, {}).get(target, {}).values())

    def middle(self, scenario: str, target: str, measure: Measure) -> float | None:
        """The median over the repetitions; None when it was not measured."""
        return _median(measure(report) for report in self.of(scenario, target))

    def added(self, scenario: str, target: str, measure: Measure) -> float | None:
        """The median of the differences to going direct, each within its repetition."""
        return self._paired(scenario, target, "direct", measure, lambda own, other: own - other)

    def ratio(self, scenario: str, target: str, other: str, measure: Measure) -> float | None:
        """The median of `other` ÷ `target`, each within its repetition."""
        return self._paired(
            scenario, target, other, measure, lambda own, base: base / own if own else None
        )

    def _paired(
        self,
        scenario: str,
        target: str,
        other: str,
        measure: Measure,
        combine: Callable[[float, float], float | None],
    ) -> float | None:
        own = self.reports.get(scenario, {}).get(target, {})
        base = self.reports.get(scenario, {}).get(other, {})
        values = []
        for repetition in own.keys() & base.keys():
            first, second = measure(own[repetition]), measure(base[repetition])
            if first is not None and second is not None:
                values.append(combine(first, second))
        return _median(values)


def _median(values: Iterator[float | None] | list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
