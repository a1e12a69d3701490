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
from app.core.models.dataset import Dataset, UnwantedFile
from app.core.models.heartbeat import Heartbeat, NodeDailyStats
from app.core.models.node import Device, HardwareRecord, Node, NodeAssignment, Replica
from app.core.models.points import DevicePointsDaily, PointGrant
from app.core.models.research import ResearchJob, ResearchStep
from app.core.models.run import IS_QUEUED, IS_RUNNING, Inference, Run, UsageHour, UsageRecord

__all__ = [
    "IS_QUEUED",
    "IS_RUNNING",
    "Account",
    "ApkVersion",
    "AuditEntry",
    "Base",
    "CatalogModel",
    "Credential",
    "Dataset",
    "Device",
    "DevicePointsDaily",
    "DeviceType",
    "EnrolmentToken",
    "HardwareRecord",
    "Heartbeat",
    "Inference",
    "KnownModel",
    "Moment",
    "Node",
    "NodeAssignment",
    "NodeDailyStats",
    "PasswordReset",
    "PointGrant",
    "Replica",
    "ResearchJob",
    "ResearchStep",
    "Run",
    "UnwantedFile",
    "UsageHour",
    "UsageRecord",
]
