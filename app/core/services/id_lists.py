"""`column IN (many ids)` without a parameter for each of them."""

from __future__ import annotations

import json
from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

FEW = 50


def among(
    session: Session, column: sa.SQLColumnExpression[int], ids: Collection[int]
) -> sa.ColumnElement[bool]:
    """The condition that `column` is one of `ids`.

    A statement with a thousand parameters takes longer to write than to run. More than a
    few travel as one array: PostgreSQL's own, or JSON for SQLite.
    """
    if len(ids) <= FEW:
        return column.in_(ids)
    if session.get_bind().dialect.name == "postgresql":
        wanted = sa.cast(list(ids), postgresql.ARRAY(sa.Integer))
        return column == sa.any_(wanted)
    values = sa.func.json_each(json.dumps(list(ids))).table_valued("value")
    return column.in_(sa.select(values.c.value))
