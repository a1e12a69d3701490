"""Versions of the network's Android apps."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.database import take_turns
from app.core.domain.errors import Conflict
from app.core.models import ApkVersion

DEFAULT_CHANNEL = "stable"


@dataclass(frozen=True, slots=True)
class NewApk:
    """A version as somebody publishes it. None keeps what is stored."""

    package_name: str
    version_name: str
    version_code: int
    download_url: str
    channel: str | None = None
    min_os_version: str | None = None
    sha256: str | None = None
    file_size_bytes: int | None = None
    is_active: bool | None = None
    released_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Apk:
    """A version as it is listed."""

    id: int
    package_name: str
    version_name: str
    version_code: int
    download_url: str
    channel: str | None
    min_os_version: str | None
    sha256: str | None
    file_size_bytes: int | None
    is_active: bool
    released_at: datetime | None
    created_at: datetime
    updated_at: datetime


def upsert_apk(session: Session, new: NewApk, *, now: datetime) -> Apk:
    """Create or change a version by package and version code.

    The file stays where `download_url` says: it is neither fetched nor checked. Raises
    Conflict when this version's file is kept here and `new` names another one.
    """
    take_turns(session, f"apk {new.package_name}")
    row = _find(session, new.package_name, new.version_code)
    if row is None:
        row = ApkVersion(
            package_name=new.package_name, version_code=new.version_code,
            channel=DEFAULT_CHANNEL, is_active=True, created_at=now,
        )  # fmt: skip
        session.add(row)
    elif row.stored_file is not None:
        _check_same_file(row, new)
    for name, value in asdict(new).items():
        if value is not None:
            setattr(row, name, value)
    row.updated_at = now
    session.flush()
    return _apk(row)


def _check_same_file(row: ApkVersion, new: NewApk) -> None:
    for name in ("download_url", "sha256", "file_size_bytes"):
        value = getattr(new, name)
        if value is not None and value != getattr(row, name):
            raise Conflict(
                f"The file of version code {row.version_code} was uploaded to this hub and"
                f" verified; its {name} can't be changed. Publish another version code.",
                field=name,
            )


def find_apk(session: Session, package_name: str, version_code: int) -> Apk | None:
    """One version, if there is such a one."""
    row = _find(session, package_name, version_code)
    return _apk(row) if row is not None else None


def list_apks(
    session: Session,
    *,
    package_name: str | None = None,
    channel: str | None = None,
    is_active: bool | None = None,
    limit: int = 50,
) -> list[Apk]:
    """Versions, newest first."""
    released = ApkVersion.released_at
    query = sa.select(ApkVersion).order_by(
        ApkVersion.version_code.desc(), released.is_(None), released.desc(),
        ApkVersion.created_at.desc(), ApkVersion.id.desc(),
    )  # fmt: skip
    if package_name is not None:
        query = query.where(ApkVersion.package_name == package_name)
    if channel is not None:
        query = query.where(ApkVersion.channel == channel)
    if is_active is not None:
        query = query.where(ApkVersion.is_active.is_(is_active))
    return [_apk(row) for row in session.scalars(query.limit(limit))]


def _find(session: Session, package_name: str, version_code: int) -> ApkVersion | None:
    return session.scalar(
        sa.select(ApkVersion).where(
            ApkVersion.package_name == package_name, ApkVersion.version_code == version_code
        )
    )


def _apk(row: ApkVersion) -> Apk:
    return Apk(
        id=row.id,
        package_name=row.package_name,
        version_name=row.version_name,
        version_code=row.version_code,
        download_url=row.download_url,
        channel=row.channel,
        min_os_version=row.min_os_version,
        sha256=row.sha256,
        file_size_bytes=row.file_size_bytes,
        is_active=row.is_active,
        released_at=row.released_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
