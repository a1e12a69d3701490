"""The catalogue: model versions that nodes may fetch and serve."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core.domain.errors import Conflict, NotFound
from app.core.models import CatalogModel

# What fabric's engine numbers mean; 5 is "none".
ENGINE_TYPES = (1, 2, 3, 4, 5, 6, 7, 8)


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A model version as somebody publishes it. `is_active` None keeps what is stored."""

    name: str
    version: str
    version_code: int
    engine_type: int
    is_active: bool | None = None
    min_memory_mb: int | None = None
    min_gpu_memory_gb: int | None = None
    download_url: str | None = None
    checksum: str | None = None
    expected_size: int | None = None


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A model version as the catalogue lists it."""

    id: int
    name: str
    version: str
    version_code: int
    engine_type: int
    is_active: bool
    min_memory_mb: int | None
    min_gpu_memory_gb: int | None
    download_url: str | None
    checksum: str | None
    expected_size: int | None
    created_at: datetime


def upsert_version(session: Session, new: NewVersion, *, now: datetime) -> CatalogEntry:
    """Create or change a version by name and version. Raises Conflict for a taken code."""
    row = session.scalar(
        sa.select(CatalogModel).where(
            CatalogModel.name == new.name, CatalogModel.version == new.version
        )
    )
    if row is None:
        row = CatalogModel(
            name=new.name, version=new.version, is_active=True, created_at=now
        )  # fmt: skip
        session.add(row)
    row.version_code = new.version_code
    row.engine_type = new.engine_type
    if new.is_active is not None:
        row.is_active = new.is_active
    row.min_memory_mb = new.min_memory_mb
    row.min_gpu_memory_gb = new.min_gpu_memory_gb
    row.download_url = new.download_url
    row.checksum = new.checksum
    row.expected_size = new.expected_size
    row.updated_at = now
    try:
        session.flush()
    except IntegrityError:
        raise Conflict(
            f"Another version of {new.name} has the version code {new.version_code}.",
            field="version_code",
        ) from None
    return _entry(row)


def list_versions(
    session: Session, *, is_active: bool | None = None, fits_in_gb: int | None = None
) -> list[CatalogEntry]:
    """Versions, the most demanding first; `fits_in_gb` keeps those that need no more."""
    needed = CatalogModel.min_gpu_memory_gb
    query = sa.select(CatalogModel).order_by(
        needed.is_(None), needed.desc(), CatalogModel.version_code.desc(),
        CatalogModel.created_at.desc(), CatalogModel.id.desc(),
    )  # fmt: skip
    if is_active is not None:
        query = query.where(CatalogModel.is_active.is_(is_active))
    if fits_in_gb is not None:
        query = query.where(sa.or_(needed.is_(None), needed <= fits_in_gb))
    return [_entry(row) for row in session.scalars(query)]


def get_version(session: Session, version_id: int) -> CatalogEntry:
    """One version. Raises NotFound."""
    row = session.get(CatalogModel, version_id)
    if row is None:
        raise NotFound("The catalogue has no such version.")
    return _entry(row)


def _entry(row: CatalogModel) -> CatalogEntry:
    return CatalogEntry(
        id=row.id,
        name=row.name,
        version=row.version,
        version_code=row.version_code,
        engine_type=row.engine_type,
        is_active=row.is_active,
        min_memory_mb=row.min_memory_mb,
        min_gpu_memory_gb=row.min_gpu_memory_gb,
        download_url=row.download_url,
        checksum=row.checksum,
        expected_size=row.expected_size,
        created_at=row.created_at,
    )
