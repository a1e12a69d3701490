"""Searching for a part of a name, in statements that are built once."""

from __future__ import annotations

import sqlalchemy as sa


def has_part(column: sa.SQLColumnExpression[str], name: str = "part") -> sa.ColumnElement[bool]:
    """The condition that `column` contains the parameter `name`, which `part_of` made."""
    part = sa.bindparam(name, type_=sa.String())
    return sa.func.lower(column).contains(part, escape="/")


def part_of(text: str | None) -> str:
    """What the parameter of `has_part` is for this text: any case, `%` and `_` literal."""
    part = (text or "").lower()
    for sign in "/%_":
        part = part.replace(sign, f"/{sign}")
    return part
