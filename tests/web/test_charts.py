"""Charts: true to their numbers, safe with any text, never broken by gaps."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from app.web.charts import (
    Series,
    bar_chart,
    line_chart,
    nice_ceiling,
    short_number,
    sparkline,
    weave,
)

HOSTILE = '<script>alert("1")</script>&'


def parsed(markup: Markup) -> ElementTree.Element:
    """The chart as a tree; what is not well-formed does not pass."""
    return ElementTree.fromstring(str(markup))  # noqa: S314 - our own output


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (7, "7"),
        (0.25, "0.25"),
        (999, "999"),
        (1234, "1.23k"),
        (128_400, "128k"),
        (5e6, "5M"),
    ],
)
def test_numbers_are_short(value: float, said: str) -> None:
    assert short_number(value) == said


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (1, 1), (6.1, 8), (98, 100), (1001, 1500), (0.3, 0.3)]
)
def test_axes_end_at_round_numbers(value: float, top: float) -> None:
    assert nice_ceiling(value) == pytest.approx(top)


def test_bars_are_as_tall_as_their_numbers() -> None:
    chart = bar_chart([Series("a", [50, 0]), Series("b", [50, 100])], ["x", "y"], title="T")
    bars = [bar.attrib for bar in parsed(chart).iter("rect") if "bar" in bar.attrib["class"]]

    assert [float(bar["height"]) for bar in bars] == [100, 100, 200]
    assert [float(bar["y"]) for bar in bars] == [100, 0, 0]


def test_a_gap_in_a_line_stays_a_gap() -> None:
    chart = line_chart([Series("a", [1, 2, None, 4, 5])], list("abcde"), title="T", ceiling=10)
    lines = re.findall(r'class="series s1" d="([^"]+)"', chart)

    assert len(lines) == 2
    assert lines[0] == "M0.00 180.00L150.00 160.00"


def test_the_numbers_stand_in_a_table_too() -> None:
    chart = line_chart([Series("load", [42, None])], ["10:00", "11:00"], title="T", unit="%")
    cells = [cell.text for cell in parsed(chart).iter("td")]

    assert cells == ["42 %", "–"]


@pytest.mark.parametrize("values", [[], [None], [5], [None, 3, None]])
def test_few_numbers_make_a_chart_as_well(values: list[float | None]) -> None:
    labels = [str(at) for at in range(len(values))]
    for chart in (
        line_chart([Series("a", values)], labels, title="T"),
        bar_chart([Series("a", values)], labels, title="T"),
        sparkline(values, "T"),
        weave(values, "T"),
    ):
        assert "nan" not in chart
        parsed(chart)


def test_hostile_names_are_text() -> None:
    charts = (
        line_chart(
            [Series(HOSTILE, [1]), Series("b", [2])], [HOSTILE], title=HOSTILE, unit=HOSTILE
        ),
        bar_chart([Series(HOSTILE, [1])], [HOSTILE], title=HOSTILE),
        sparkline([1, 2], HOSTILE),
        weave([1, 2], HOSTILE),
    )

    for chart in charts:
        assert "<script" not in chart
        assert [node for node in parsed(chart).iter() if node.tag == "script"] == []
