"""`column IN (many ids)` without a parameter for each of them."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

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


def listed(column: sa.SQLColumnExpression[int], name: str = "ids") -> sa.ColumnElement[bool]:
    """The condition that `column` is one of the ids in the parameter `name`, any collection.

    For statements that are built once: one that is built for each call costs as much as
    running it.
    """
    return _Listed(column, sa.bindparam(name, type_=_IdArray()))


def within(
    column: sa.SQLColumnExpression[int], ids: sa.Select[tuple[int]]
) -> sa.ColumnElement[bool]:
    """The condition that `column` is one of the ids that a query finds.

    For PostgreSQL the ids are found first and looked up one by one: it takes a join for a
    reason to read all of a long table.
    """
    return _Within(column, ids.scalar_subquery())


class _IdArray(TypeDecorator[Collection[int]]):
    """Ids in one parameter: JSON for SQLite, an array's text for PostgreSQL.

    The text, because psycopg takes longer to write an array than the server to use it.
    """

    impl = sa.Text
    cache_ok = True

    def process_bind_param(
        self, value: Collection[int] | None, dialect: sa.Dialect
    ) -> str | None:
        """The ids as the database wants them."""
        begin, end = "{}" if dialect.name == "postgresql" else "[]"
        return f"{begin}{','.join(map(str, value or ()))}{end}"


class _Listed(FunctionElement[Any]):
    """`column IN (ids)`, in each database's words.

    It has no type: a boolean is written as `... = 1` for SQLite, which then uses no index.
    """

    inherit_cache = True


class _Within(_Listed):
    """`column IN (SELECT ...)`, in each database's words; no type here either."""

    inherit_cache = True


@compiles(_Within, "postgresql")
def _in_found_array(element: _Within, compiler: SQLCompiler, **options: Any) -> str:
    column, ids = (compiler.process(one, **options) for one in element.clauses)
    return f"{column} = ANY (ARRAY{ids})"


@compiles(_Within, "sqlite")
def _in_found(element: _Within, compiler: SQLCompiler, **options: Any) -> str:
    column, ids = (compiler.process(one, **options) for one in element.clauses)
    return f"{column} IN {ids}"


@compiles(_Listed, "postgresql")
def _in_array(element: _Listed, compiler: SQLCompiler, **options: Any) -> str:
    column, ids = (compiler.process(one, **options) for one in element.clauses)
    return f"{column} = ANY (CAST({ids} AS INTEGER[]))"


@compiles(_Listed, "sqlite")
def _in_json(element: _Listed, compiler: SQLCompiler, **options: Any) -> str:
    column, ids = (compiler.process(one, **options) for one in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({ids}))"  # noqa: S608
