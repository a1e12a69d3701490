"""Writes docs/settings.md from the settings themselves: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic.fields import FieldInfo

from app.config import Settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
INTRODUCTION = """# Settings

The hub reads its settings from the environment when a process starts, or from a file `.env`
in the folder that it starts in; the environment wins. A value that makes no sense stops the start
with a sentence that names it. `.env.example` has the ones that a first installation sets.

`make run` changes two defaults, because everything then runs on one machine of yours:
`ALLOWED_NODE_NETWORKS` is loopback and `AUTO_APPROVE_PROVIDERS` is on. What you set wins.

An agent has options of its own: `python -m agent --help`.

This page is written from `app/config.py` by `make docs`; a test keeps the two equal.
"""


def render() -> str:
    """The whole page."""
    rows = ["| Name | Default | Meaning |", "|---|---|---|"]
    rows += [_row(field) for field in Settings.model_fields.values()]
    return "\n".join([INTRODUCTION, *rows, ""])


def _row(field: FieldInfo) -> str:
    meaning = (field.description or "").replace("|", "\\|")
    return f"| `{field.alias}` | {_default(field.default)} | {meaning} |"


def _default(value: object) -> str:
    if isinstance(value, bool):
        return "`1`" if value else "`0`"
    if isinstance(value, tuple):
        value = ", ".join(str(part) for part in value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{value}`" if str(value) else "–"


def main() -> int:
    """Write the page."""
    PAGE.write_text(render())
    return 0


if __name__ == "__main__":
    sys.exit(main())
