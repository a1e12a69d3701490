"""The migrations make the schema that the models describe, and take it away again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask
from flask_migrate import downgrade, upgrade

from app.core.database import make_engine
from app.core.models import Base
from app.extensions import db
from tests.fixtures.databases import MIGRATIONS, Database, app_for


def test_there_is_one_head() -> None:
    assert len(ScriptDirectory(str(MIGRATIONS)).get_heads()) == 1


def test_the_models_are_the_migrated_schema(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, Base.metadata)

    assert differences == []


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Flask]:
    app = app_for(empty_database_url)
    with app.app_context():
        yield app
        db.engine.dispose()


@pytest.mark.usefixtures("empty")
def test_the_schema_can_be_made_and_taken_away(empty_database_url: str) -> None:
    upgrade(directory=str(MIGRATIONS))
    assert set(tables(empty_database_url)) >= set(Base.metadata.tables)

    downgrade(directory=str(MIGRATIONS), revision="base")
    assert tables(empty_database_url) == ["alembic_version"]

    upgrade(directory=str(MIGRATIONS))
    assert set(tables(empty_database_url)) >= set(Base.metadata.tables)


def tables(url: str) -> list[str]:
    engine = make_engine(url)
    try:
        return sa.inspect(engine).get_table_names()
    finally:
        engine.dispose()


def test_a_web_process_does_not_carry_the_tools_of_migrations() -> None:
    script = "import sys, gunicorn.arbiter, wsgi; sys.exit('alembic' in sys.modules)"
    environment = {**os.environ, "SECRET_KEY": "k" * 32, "REDIS_URL": "unix:///nowhere"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert done.returncode == 0
