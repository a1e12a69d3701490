"""How templates say numbers, sizes and times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.core.clock import utc_now
from app.web.pages import ago, duration, moment, number, percent, size


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "–"), (0.0821, "82 ms"), (3.44, "3.44 s"), (125, "2 min 5 s"), (3600, "1 h"),
        (12_000, "3 h 20 min"), (86_400 * 5 + 7200, "5 d 2 h"),
    ],
)  # fmt: skip
def test_durations(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("amount", "said"), [(None, "–"), (0, "0 B"), (1536, "1.5 KiB"), (24 * 2**30, "24 GiB")]
)
def test_sizes(amount: int | None, said: str) -> None:
    assert size(amount) == said


def test_what_is_unknown_is_a_dash_and_never_zero() -> None:
    assert number(None) == percent(None) == moment(None) == "–"
    assert number(0) == "0"
    assert ago(None) == "never"


def test_times_carry_their_moment_for_the_script() -> None:
    at = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)

    assert moment(at) == (
        '<time datetime="2026-03-01T09:30:00Z" data-time="at">2026-03-01 09:30 UTC</time>'
    )
    assert ">2 min ago</time>" in ago(utc_now() - timedelta(seconds=121))
    assert ">just now</time>" in ago(utc_now() + timedelta(seconds=5))
