"""Alembic's environment: the app's engine and the tables of `app.core.models`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context
from flask import current_app

from app.core.models import Base

database = current_app.extensions["migrate"].db


def run_migrations() -> None:
    """Migrate over the app's own connection."""
    with database.engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            render_as_batch=connection.dialect.name == "sqlite",
            compare_type=True,
            render_item=_render_item,
        )
        with context.begin_transaction():
            context.run_migrations()


def _render_item(kind: str, item: object, _context: object) -> str | bool:
    """Write our own column types as what the database sees, so that migrations stand alone.

    And what a primary key's index holds besides the key, which Alembic leaves out.
    """
    if kind == "primary_key" and isinstance(item, sa.PrimaryKeyConstraint):
        return _render_key(item) if item.dialect_kwargs.get("postgresql_include") else False
    if kind == "type" and type(item).__name__ == "Moment":
        return "sa.DateTime(timezone=True)"
    return False


def _render_key(key: sa.PrimaryKeyConstraint) -> str:
    columns = ", ".join(repr(column.name) for column in key.columns)
    included = list(key.dialect_kwargs["postgresql_include"])
    return (
        f"sa.PrimaryKeyConstraint({columns}, name=op.f({str(key.name)!r}),"
        f" postgresql_include={included!r})"
    )


if context.is_offline_mode():
    context.configure(
        url=str(database.engine.url), target_metadata=Base.metadata, literal_binds=True
    )
    with context.begin_transaction():
        context.run_migrations()
else:
    run_migrations()
