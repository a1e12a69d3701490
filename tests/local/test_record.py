"""What the local run remembers between two starts."""

from __future__ import annotations

import stat
from pathlib import Path

from sqlalchemy.orm import Session

from app.config import Settings
from app.core.clock import utc_now
from app.core.domain.accounts import CredentialKind, Role
from app.core.models import Account
from app.core.services import credentials
from app.local.prepare import fill_record
from app.local.record import LocalRecord, read_record, record_path, write_record
from app.local.terminal import welcome

KEYS = frozenset({CredentialKind.API_KEY})


def test_a_written_record_is_read_again(tmp_path: Path) -> None:
    record = LocalRecord("a@example.org", "secret", "sk-1", "token")

    write_record(tmp_path, record)

    assert read_record(tmp_path) == record


def test_nobody_else_may_read_the_record(tmp_path: Path) -> None:
    write_record(tmp_path, LocalRecord())

    assert stat.S_IMODE(record_path(tmp_path).stat().st_mode) == 0o600


def test_a_broken_record_is_made_anew(tmp_path: Path) -> None:
    record_path(tmp_path).write_text("{broken")

    assert read_record(tmp_path) == LocalRecord()


def test_the_first_start_makes_an_admin_and_a_key_that_opens(
    session: Session, settings: Settings
) -> None:
    record = fill_record(session, LocalRecord(), settings)

    identity = credentials.identify_secret(session, record.api_key, kinds=KEYS, now=utc_now())
    assert identity is not None
    assert identity.role is Role.ADMIN
    assert identity.email == record.admin_email
    assert len(record.admin_password) >= 12


def test_a_second_start_changes_nothing_that_is_shown(
    session: Session, settings: Settings
) -> None:
    first = fill_record(session, LocalRecord(), settings)
    second = fill_record(session, first, settings)

    assert (second.admin_email, second.admin_password) == (
        first.admin_email,
        first.admin_password,
    )
    assert second.api_key == first.api_key
    assert session.query(Account).count() == 1


def test_a_revoked_key_is_replaced_by_one_that_opens(
    session: Session, settings: Settings
) -> None:
    first = fill_record(session, LocalRecord(), settings)
    identity = credentials.identify_secret(session, first.api_key, kinds=KEYS, now=utc_now())
    assert identity is not None
    assert identity.credential_id is not None
    credentials.end_credential(session, identity.credential_id, now=utc_now())

    second = fill_record(session, first, settings)

    assert second.api_key != first.api_key
    assert credentials.identify_secret(session, second.api_key, kinds=KEYS, now=utc_now())


def test_a_password_of_the_operators_own_is_not_written_down(
    session: Session, settings: Settings
) -> None:
    chosen = settings.model_copy(update={"admin_password": "their own choice"})

    record = fill_record(session, LocalRecord(), chosen)

    assert record.admin_password == ""
    assert "the one you set" in welcome("http://127.0.0.1:8000", record, [])


def test_the_welcome_has_a_line_that_streams() -> None:
    text = welcome("http://127.0.0.1:8000", LocalRecord(api_key="sk-1"), ["small"])

    assert "curl -N http://127.0.0.1:8000/v1/chat/completions" in text
    assert '"stream": true' in text
    assert "Bearer sk-1" in text
    assert '"model": "small"' in text
