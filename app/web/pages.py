"""What page templates use: filters for numbers and times, addresses of assets, charts."""

from __future__ import annotations

import functools
import hashlib
from datetime import UTC, datetime
from pathlib import Path

from flask import Flask, current_app, request, url_for
from markupsafe import Markup, escape

from app.core.clock import utc_now
from app.web import charts

_NO_VALUE = "–"


def install_pages(app: Flask) -> None:
    """Give templates their filters and functions."""
    app.jinja_env.filters.update(
        number=number,
        short=short,
        ago=ago,
        moment=moment,
        duration=duration,
        size=size,
        percent=percent,
    )
    app.jinja_env.globals.update(
        asset=asset,
        sparkline=charts.sparkline,
        line_chart=charts.line_chart,
        bar_chart=charts.bar_chart,
        weave=charts.weave,
    )
    app.jinja_env.trim_blocks = True
    app.jinja_env.lstrip_blocks = True


def wants_fragment() -> bool:
    """Whether htmx asks for a part of the page, and not the browser for the whole of it."""
    headers = request.headers
    return (
        headers.get("HX-Request") == "true"
        and headers.get("HX-Boosted") != "true"
        and headers.get("HX-History-Restore-Request") != "true"
    )


def asset(path: str) -> str:
    """The address of a static file, with its content's hash, so that it may be cached for ever."""
    file = Path(current_app.static_folder or "") / path
    version = _content_hash(str(file), file.stat().st_mtime_ns)
    return url_for("static", filename=path, v=version)


@functools.lru_cache(maxsize=256)
def _content_hash(path: str, _changed_at: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


def number(value: float | int | None) -> str:
    """1234567 → `1,234,567`; a dash for None."""
    if value is None:
        return _NO_VALUE
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"


def short(value: float | int | None) -> str:
    """1234567 → `1.23M`; a dash for None."""
    return _NO_VALUE if value is None else charts.short_number(value)


def percent(value: float | None) -> str:
    """42.4 → `42 %`; a dash for None."""
    return _NO_VALUE if value is None else f"{value:.0f} %"


def size(value: float | int | None) -> str:
    """Bytes in binary units: `24 GiB`; a dash for None."""
    if value is None:
        return _NO_VALUE
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            return (
                f"{amount:.0f} {unit}"
                if amount >= 100 or unit == "B"
                else f"{amount:.3g} {unit}"
            )
        amount /= 1024
    return _NO_VALUE


def duration(seconds: float | None) -> str:
    """`820 ms`, `3.4 s`, `2 min 5 s`, `3 h 20 min`, `5 d 2 h`; a dash for None."""
    if seconds is None:
        return _NO_VALUE
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = int(seconds)
    for big, small, big_name, small_name in (
        (86_400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")
    ):  # fmt: skip
        if whole >= big:
            rest = whole % big // small
            return f"{whole // big} {big_name}" + (f" {rest} {small_name}" if rest else "")
    return f"{whole} s"


def ago(at: datetime | None) -> str | Markup:
    """A `<time>` that says how long ago; a script keeps it true while the page is open."""
    if at is None:
        return "never"
    seconds = max(0.0, (utc_now() - at).total_seconds())
    return _time(
        at, f"{duration(int(seconds) // 5 * 5)} ago" if seconds >= 10 else "just now", "ago"
    )


def moment(at: datetime | None) -> str | Markup:
    """A `<time>` in UTC; a script shows it in the reader's own zone."""
    if at is None:
        return _NO_VALUE
    return _time(at, f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC", "at")


def _time(at: datetime, text: str, kind: str) -> Markup:
    stamp = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Markup('<time datetime="{}" data-time="{}">{}</time>').format(
        stamp, kind, escape(text)
    )
