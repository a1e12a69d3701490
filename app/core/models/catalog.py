"""Models and APKs that the network knows, and kinds of device."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.core.models.base import Base


class CatalogModel(Base):
    """A model version that nodes may fetch and serve."""

    __tablename__ = "catalog_models"
    __table_args__ = (
        sa.UniqueConstraint("name", "version"),
        sa.UniqueConstraint("name", "version_code"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(100))
    version: Mapped[str] = mapped_column(sa.String(50))
    version_code: Mapped[int]
    engine_type: Mapped[int]
    is_active: Mapped[bool] = mapped_column(default=True)
    min_memory_mb: Mapped[int | None]
    min_gpu_memory_gb: Mapped[int | None]
    download_url: Mapped[str | None] = mapped_column(sa.String(1000))
    checksum: Mapped[str | None] = mapped_column(sa.String(128))
    expected_size: Mapped[int | None] = mapped_column(sa.BigInteger)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class KnownModel(Base):
    """A model name that some node has ever served: unknown names are 404, known ones 503."""

    __tablename__ = "known_models"

    name: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    first_seen_at: Mapped[datetime]


class ApkVersion(Base):
    """A version of an Android app of the network."""

    __tablename__ = "apk_versions"
    __table_args__ = (sa.UniqueConstraint("package_name", "version_code"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    package_name: Mapped[str] = mapped_column(sa.String(255))
    version_name: Mapped[str] = mapped_column(sa.String(64))
    version_code: Mapped[int]
    download_url: Mapped[str] = mapped_column(sa.String(1000))
    channel: Mapped[str | None] = mapped_column(sa.String(32))
    min_os_version: Mapped[str | None] = mapped_column(sa.String(32))
    sha256: Mapped[str | None] = mapped_column(sa.String(64))
    file_size_bytes: Mapped[int | None] = mapped_column(sa.BigInteger)
    is_active: Mapped[bool] = mapped_column(default=True)
    released_at: Mapped[datetime | None]
    stored_file: Mapped[str | None] = mapped_column(sa.String(200))
    signer_sha256: Mapped[str | None] = mapped_column(sa.String(64))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class DeviceType(Base):
    """A kind of device: PCI ids, names, and the speed that points are counted by."""

    __tablename__ = "device_types"
    __table_args__ = (sa.UniqueConstraint("vendor_id", "device_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    vendor_id: Mapped[int]
    device_id: Mapped[int]
    vendor: Mapped[str] = mapped_column(sa.String(64))
    name: Mapped[str] = mapped_column(sa.String(128), index=True)
    tflops: Mapped[float]
    source: Mapped[str] = mapped_column(sa.String(300))
