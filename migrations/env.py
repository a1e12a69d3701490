"""Alembic's environment: the app's engine and the tables of `app.core.models`."""

from __future__ import annotations

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
    """Write our own column types as what the database sees, so that migrations stand alone."""
    if kind == "type" and type(item).__name__ == "Moment":
        return "sa.DateTime(timezone=True)"
    return False


if context.is_offline_mode():
    context.configure(
        url=str(database.engine.url), target_metadata=Base.metadata, literal_binds=True
    )
    with context.begin_transaction():
        context.run_migrations()
else:
    run_migrations()
