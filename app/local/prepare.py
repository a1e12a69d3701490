"""Makes the data folder ready: schema, first admin, an API key, the local node's token.

Runs as a step of its own (`python -m app.local.prepare`), so that the supervisor itself
never opens the database. Safe to run again: what is there is kept.
"""

from __future__ import annotations

import secrets
import sys
from dataclasses import replace
from pathlib import Path

from flask_migrate import upgrade
from sqlalchemy.orm import Session

from app.config import Settings
from app.core.clock import utc_now
from app.core.database import make_engine, make_sessions, unit_of_work
from app.core.domain.accounts import CredentialKind
from app.core.models import Account
from app.core.services import accounts, credentials, enrolment
from app.factory import create_app
from app.local.record import LocalRecord, read_record, write_record

MIGRATIONS = Path(__file__).parents[2] / "migrations"
ENROLMENT_HOURS = 30 * 24
ENROLMENT_USES = 100


def main() -> int:
    """Prepare the data folder of the settings in the environment."""
    settings = Settings.from_env()
    with create_app(settings).app_context():
        upgrade(directory=str(MIGRATIONS))
    engine = make_engine(settings.database_url)
    with unit_of_work(make_sessions(engine)) as session:
        record = fill_record(session, read_record(settings.data_dir), settings)
    engine.dispose()
    write_record(settings.data_dir, record)
    return 0


def fill_record(session: Session, record: LocalRecord, settings: Settings) -> LocalRecord:
    """The record with all that is missing in it, or no longer true, made anew."""
    password = settings.admin_password or secrets.token_urlsafe(12)
    admin, is_new = accounts.ensure_admin(
        session,
        email=settings.admin_email,
        password=password,
        now=utc_now(),
        hash_profile=settings.argon2_profile,
    )
    if is_new:
        shown = "" if settings.admin_password else password
        record = replace(record, admin_password=shown)
    record = replace(record, admin_email=admin.email or "")
    if not _opens(session, record.api_key):
        record = replace(record, api_key=_new_key(session, admin))
    if settings.local_node:
        record = replace(record, enrolment_token=_enrolment_token(session, admin))
    return record


def _opens(session: Session, api_key: str) -> bool:
    kinds = frozenset({CredentialKind.API_KEY})
    return bool(api_key) and (
        credentials.identify_secret(session, api_key, kinds=kinds, now=utc_now()) is not None
    )


def _new_key(session: Session, admin: Account) -> str:
    issued = credentials.issue_api_key(
        session, admin.id, name="make run", now=utc_now(), limit=None
    )
    return issued.secret


def _enrolment_token(session: Session, admin: Account) -> str:
    """A fresh token at every start; the node uses it only when it isn't known yet."""
    _row, secret = enrolment.create_enrolment_token(
        session, admin, now=utc_now(), hours=ENROLMENT_HOURS, uses=ENROLMENT_USES
    )
    return secret


if __name__ == "__main__":
    sys.exit(main())
