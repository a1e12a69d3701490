"""All tables. Importing this package registers every one on `Base.metadata`."""

from __future__ import annotations

from app.core.models.account import (
    Account,
    AuditEntry,
    Credential,
    EnrolmentToken,
    PasswordReset,
)
from app.core.models.base import Base, Moment
from app.core.models.catalog import ApkVersion, CatalogModel, DeviceType, KnownModel
from app.core.models.node import Device, HardwareRecord, Node, Replica
from app.core.models.run import Inference, Run, UsageHour, UsageRecord

__all__ = [
    "Account",
    "ApkVersion",
    "AuditEntry",
    "Base",
    "CatalogModel",
    "Credential",
    "Device",
    "DeviceType",
    "EnrolmentToken",
    "HardwareRecord",
    "Inference",
    "KnownModel",
    "Moment",
    "Node",
    "PasswordReset",
    "Replica",
    "Run",
    "UsageHour",
    "UsageRecord",
]
