"""The APK store: files that the hub keeps and serves, each signed by who signed the ones before."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.apk_file import ApkFacts, read_apk
from app.core.database import take_turns
from app.core.domain.errors import Conflict, NotFound
from app.core.models import ApkVersion
from app.core.services import accounts, apks
from app.core.storage import Storage, StoredFile

KIND = "apks"
MAX_APK_BYTES = 512 * 2**20
_ANDROID = {
    21: "5.0", 22: "5.1", 23: "6.0", 24: "7.0", 25: "7.1", 26: "8.0", 27: "8.1", 28: "9",
    29: "10", 30: "11", 31: "12", 32: "12L", 33: "13", 34: "14", 35: "15", 36: "16",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredApk:
    """A version whose file is here."""

    stored_file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class AppVersion:
    """A version as the store shows it. `is_stored`: its file is here, and not elsewhere."""

    version_name: str
    version_code: int
    download_url: str
    min_os_version: str | None
    sha256: str | None
    size_bytes: int | None
    signer_sha256: str | None
    is_active: bool
    is_stored: bool
    released_at: datetime | None


def inspect_stored(storage: Storage, name: str) -> ApkFacts:
    """What a stored file says of itself. Raises InvalidInput for what is no signed APK."""
    local = storage.local_path(name)
    if local is not None:
        return read_apk(local)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.apk"
        with storage.open(name) as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target, 2**20)
        return read_apk(copy)


def publish(
    session: Session,
    stored: StoredFile,
    facts: ApkFacts,
    *,
    url: str,
    actor_id: int,
    now: datetime,
) -> ApkVersion:
    """Make a stored file a version of its app.

    Raises Conflict when another certificate signed the earlier versions, or when the version
    code is taken by another file. Of two uploads at the same moment the second sees the first.
    The row may keep an earlier upload of the same file instead of `stored`.
    """
    take_turns(session, f"apk {facts.package_name}")
    _check_signer(session, facts)
    row = _find(session, facts.package_name, facts.version_code)
    kept = None
    if row is not None and row.stored_file is not None:
        if row.sha256 != stored.sha256:
            raise Conflict(
                f"Version code {facts.version_code} of {facts.package_name} is published"
                " already, as another file. Raise the version code.",
                field="apk",
            )
        # The address may be spelt otherwise now; the file is the same.
        kept, row.stored_file = row.stored_file, None
    apks.upsert_apk(
        session,
        apks.NewApk(
            package_name=facts.package_name, version_name=facts.version_name or "unnamed",
            version_code=facts.version_code, download_url=url,
            min_os_version=android_version(facts.min_sdk), sha256=stored.sha256,
            file_size_bytes=stored.size_bytes, is_active=True, released_at=now,
        ),
        now=now,
    )  # fmt: skip
    row = _find(session, facts.package_name, facts.version_code)
    if row is None:
        raise NotFound("The version is gone again.")
    row.stored_file, row.signer_sha256 = kept or stored.name, facts.signer_sha256
    accounts.note(
        session, actor_id=actor_id, action="apk.publish",
        subject=f"{facts.package_name} {facts.version_code}"[:100], detail=stored.sha256, now=now,
    )  # fmt: skip
    session.flush()
    return row


def _check_signer(session: Session, facts: ApkFacts) -> None:
    known = set(
        session.scalars(
            sa.select(ApkVersion.signer_sha256).where(
                ApkVersion.package_name == facts.package_name,
                ApkVersion.signer_sha256.is_not(None),
            )
        )
    )
    if known and facts.signer_sha256 not in known:
        raise Conflict(
            f"{facts.package_name} was signed with another certificate until now. Phones refuse"
            " such an update, and so does the hub: sign it with the same key as before.",
            field="apk",
        )


def find_stored(session: Session, package_name: str, version_code: int) -> StoredApk:
    """The file of an active version. Raises NotFound when there is none here."""
    row = _find(session, package_name, version_code)
    if row is None or not row.is_active or row.stored_file is None:
        raise NotFound("There is no such version of an app here.")
    return StoredApk(row.stored_file, row.sha256 or "")


def list_apps(session: Session, *, with_inactive: bool) -> dict[str, list[AppVersion]]:
    """Versions by package, newest first; the packages by name."""
    query = sa.select(ApkVersion).order_by(
        ApkVersion.package_name, ApkVersion.version_code.desc()
    )
    if not with_inactive:
        query = query.where(ApkVersion.is_active)
    found: dict[str, list[AppVersion]] = {}
    for row in session.scalars(query.limit(1000)):
        found.setdefault(row.package_name, []).append(_version(row))
    return found


def set_active(
    session: Session, package_name: str, version_code: int, *, is_active: bool, actor_id: int,
    now: datetime,
) -> None:  # fmt: skip
    """Take a version out of the store, or put it back. Raises NotFound."""
    row = _find(session, package_name, version_code)
    if row is None:
        raise NotFound("There is no such version of an app here.")
    row.is_active, row.updated_at = is_active, now
    accounts.note(
        session, actor_id=actor_id, action="apk.activate" if is_active else "apk.withdraw",
        subject=f"{package_name} {version_code}"[:100], now=now,
    )  # fmt: skip
    session.flush()


def android_version(min_sdk: str) -> str:
    """`26` → `Android 8.0`; levels that have no number yet keep their own."""
    number = int(min_sdk) if min_sdk.isdecimal() else 0
    return f"Android {_ANDROID[number]}" if number in _ANDROID else f"API level {min_sdk}"[:32]


def _find(session: Session, package_name: str, version_code: int) -> ApkVersion | None:
    return session.scalar(
        sa.select(ApkVersion).where(
            ApkVersion.package_name == package_name, ApkVersion.version_code == version_code
        )
    )


def _version(row: ApkVersion) -> AppVersion:
    return AppVersion(
        version_name=row.version_name,
        version_code=row.version_code,
        download_url=row.download_url,
        min_os_version=row.min_os_version,
        sha256=row.sha256,
        size_bytes=row.file_size_bytes,
        signer_sha256=row.signer_sha256,
        is_active=row.is_active,
        is_stored=row.stored_file is not None,
        released_at=row.released_at,
    )
