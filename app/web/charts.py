"""Charts as SVG, drawn on the server from plain numbers. Every text in them is escaped.

A plot stretches to its box (`preserveAspectRatio="none"`, strokes keep their width), while
its labels are HTML around it, so that they stay readable on a phone. None is a gap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 600.0
HEIGHT = 200.0
MAX_SERIES = 4
_X_LABELS = 5

Number = float | int | None
Format = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Series:
    """One named row of numbers; None where nothing is known."""

    name: str
    values: Sequence[Number]


def short_number(value: float) -> str:
    """1234 → `1.2k`: at most four characters and a letter, for axes and tiles."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            scaled = value / size
            return f"{scaled:.0f}{letter}" if abs(scaled) >= 100 else f"{scaled:.3g}{letter}"
    return f"{value:.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.2g}"


def nice_ceiling(value: float) -> float:
    """The next round number at or above `value`; 1 for nothing at all."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    steps = (step * power for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10))
    return next(step for step in steps if step >= value * (1 - 1e-9))


def sparkline(values: Sequence[Number], label: str) -> Markup:
    """A small line without axes; `label` says in words what it shows."""
    top = max((v for v in values if v is not None), default=0) or 1
    points = _points(values, top, 100.0, 28.0, inset=2.0)
    body = [f"<title>{escape(label)}</title>"]
    for run in points:
        body.append(f'<path class="spark-area" d="{_area(run, 28.0)}"/>')
        body.append(f'<path class="spark-line" d="{_line(run)}"/>')
    return Markup(  # noqa: S704 - built from numbers and escaped text alone
        f'<svg class="spark" viewBox="0 0 100 28" preserveAspectRatio="none" role="img"'
        f' aria-label="{escape(label)}">{"".join(body)}</svg>'
    )


def line_chart(
    series: Sequence[Series],
    labels: Sequence[str],
    *,
    title: str,
    unit: str = "",
    ceiling: float | None = None,
    form: Format = short_number,
) -> Markup:
    """Lines over time, with a legend when there are several and the numbers as a table.

    `labels` name the points; `ceiling` fixes the top of the axis (100 for percent).
    """
    top = ceiling or nice_ceiling(_largest(series))
    marks = []
    for place, one in enumerate(series[:MAX_SERIES], 1):
        for run in _points(one.values, top, WIDTH, HEIGHT):
            if len(series) == 1:
                marks.append(f'<path class="area s{place}" d="{_area(run, HEIGHT)}"/>')
            marks.append(f'<path class="series s{place}" d="{_line(run)}"/>')
    marks.append(_hits(series, labels, unit, form))
    return _figure(series, labels, "".join(marks), title=title, unit=unit, top=top, form=form)


def bar_chart(
    series: Sequence[Series],
    labels: Sequence[str],
    *,
    title: str,
    unit: str = "",
    form: Format = short_number,
) -> Markup:
    """Bars, the series of one label stacked on each other."""
    sums = [sum(_at(one, at) or 0 for one in series) for at in range(len(labels))]
    top = nice_ceiling(max(sums, default=0))
    slot = WIDTH / max(1, len(labels))
    bar = slot * (0.72 if len(labels) <= 48 else 0.9)
    marks = []
    for at in range(len(labels)):
        foot = HEIGHT
        for place, one in enumerate(series[:MAX_SERIES], 1):
            tall = (_at(one, at) or 0) / top * HEIGHT
            if tall > 0:
                left = at * slot + (slot - bar) / 2
                marks.append(
                    f'<rect class="bar s{place}" x="{left:.2f}" y="{foot - tall:.2f}"'
                    f' width="{bar:.2f}" height="{tall:.2f}"/>'
                )
            foot -= tall
    marks.append(_hits(series, labels, unit, form))
    return _figure(series, labels, "".join(marks), title=title, unit=unit, top=top, form=form)


def weave(values: Sequence[Number], label: str) -> Markup:
    """One row of cells, darker the larger the number: an hour of a node, say."""
    top = max((v for v in values if v is not None), default=0) or 1
    slot = 240.0 / max(1, len(values))
    cells = "".join(
        f'<rect class="w{0 if not value else max(1, math.ceil(4 * value / top))}"'
        f' x="{at * slot:.2f}" width="{slot * 0.82:.2f}" height="12" rx="1.5"/>'
        for at, value in enumerate(values)
    )
    return Markup(  # noqa: S704 - built from numbers and escaped text alone
        f'<svg class="weave-svg" viewBox="0 0 240 12" preserveAspectRatio="none" role="img"'
        f' aria-label="{escape(label)}"><title>{escape(label)}</title>{cells}</svg>'
    )


def _largest(series: Sequence[Series]) -> float:
    return max((v for one in series for v in one.values if v is not None), default=0)


def _at(one: Series, at: int) -> Number:
    return one.values[at] if at < len(one.values) else None


def _points(
    values: Sequence[Number], top: float, width: float, height: float, *, inset: float = 0.0
) -> list[list[tuple[float, float]]]:
    """Stretches of known values as points of the plot; a gap begins a new stretch."""
    step = width / max(1, len(values) - 1)
    runs: list[list[tuple[float, float]]] = [[]]
    for at, value in enumerate(values):
        if value is None:
            runs.append([])
            continue
        share = min(1.0, max(0.0, value / top))
        runs[-1].append((at * step, height - inset - share * (height - 2 * inset)))
    return [
        run if len(run) > 1 else _dash(run[0], max(step / 4, width / 100), width)
        for run in runs
        if run
    ]


def _dash(point: tuple[float, float], long: float, width: float) -> list[tuple[float, float]]:
    """A point that stands alone, long enough to be seen."""
    left = max(0.0, min(point[0], width - long))
    return [(left, point[1]), (left + long, point[1])]


def _line(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points)


def _area(points: Sequence[tuple[float, float]], foot: float) -> str:
    return f"{_line(points)}L{points[-1][0]:.2f} {foot:g}L{points[0][0]:.2f} {foot:g}Z"


def _hits(series: Sequence[Series], labels: Sequence[str], unit: str, form: Format) -> str:
    """A column over each label that tells its numbers when it is pointed at."""
    slot = WIDTH / max(1, len(labels))
    columns = []
    for at, label in enumerate(labels):
        words = [f"{one.name}: {_said(_at(one, at), unit, form)}" for one in series]
        text = escape(f"{label}\n" + "\n".join(words))
        columns.append(
            f'<rect class="hit" x="{at * slot:.2f}" width="{slot:.2f}" height="{HEIGHT:g}">'
            f"<title>{text}</title></rect>"
        )
    return "".join(columns)


def _said(value: Number, unit: str, form: Format) -> str:
    return "–" if value is None else f"{form(value)} {unit}".rstrip()


def _figure(
    series: Sequence[Series],
    labels: Sequence[str],
    marks: str,
    *,
    title: str,
    unit: str,
    top: float,
    form: Format,
) -> Markup:
    grid = "".join(
        f'<line class="{"axis-line" if at == 4 else "grid-line"}" x1="0" x2="{WIDTH:g}"'
        f' y1="{HEIGHT * at / 4:g}" y2="{HEIGHT * at / 4:g}"/>'
        for at in range(0, 5, 2)
    )
    said = escape(f"{title}{f' ({unit})' if unit else ''}")
    is_scale = top != 1.0 or _largest(series) > 0  # else nothing is there to be measured
    ticks = "".join(
        f"<span>{escape(form(top * part)) if is_scale or not part else ''}</span>"
        for part in (1, 0.5, 0)
    )
    shown = "".join(f"<span>{escape(label)}</span>" for label in _thin(labels))
    return Markup(  # noqa: S704 - built from numbers and escaped text alone
        f'<figure class="chart"><figcaption class="chart-caption"><span>{said}</span>'
        f"{_legend(series)}</figcaption>"
        f'<div class="chart-frame"><div class="chart-y" aria-hidden="true">{ticks}</div>'
        f'<svg class="chart-plot" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" preserveAspectRatio="none"'
        f' role="img" aria-label="{said}"><title>{said}</title>{grid}{marks}</svg>'
        f'<div class="chart-x" aria-hidden="true">{shown}</div></div>'
        f"{_table(series, labels, unit, form)}</figure>"
    )


def _thin(labels: Sequence[str]) -> list[str]:
    """At most five labels, evenly spread, the first and the last among them."""
    if len(labels) <= _X_LABELS:
        return list(labels)
    last = len(labels) - 1
    return [labels[round(last * at / (_X_LABELS - 1))] for at in range(_X_LABELS)]


def _legend(series: Sequence[Series]) -> str:
    if len(series) < 2:
        return ""
    keys = "".join(
        f'<span><i class="swatch s{place}" aria-hidden="true"></i>{escape(one.name)}</span>'
        for place, one in enumerate(series[:MAX_SERIES], 1)
    )
    return f'<span class="chart-legend">{keys}</span>'


def _table(series: Sequence[Series], labels: Sequence[str], unit: str, form: Format) -> str:
    heads = "".join(f'<th scope="col" class="num">{escape(one.name)}</th>' for one in series)
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th>'
        + "".join(
            f'<td class="num">{escape(_said(_at(one, at), unit, form))}</td>' for one in series
        )
        + "</tr>"
        for at, label in enumerate(labels)
    )
    return (
        '<details class="chart-data"><summary>Show as a table</summary>'
        '<div class="table-wrap" tabindex="0" role="region" aria-label="Chart data">'
        f'<table class="table"><thead><tr><th scope="col">Time</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details>"
    )
