"""Moments as JSON spells them: UTC, with a Z."""

from __future__ import annotations

from datetime import UTC, datetime


def iso_seconds(at: datetime) -> str:
    """`2026-01-31T09:30:00Z`."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def iso_millis(at: datetime) -> str:
    """`2026-01-31T09:30:00.125Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
