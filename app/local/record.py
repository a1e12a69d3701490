"""What the local run remembers between starts, to show it again: sign-in, key, node token."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class LocalRecord:
    """The first admin's sign-in, an API key that works, the local node's enrolment token.

    It stands in clear in the data folder, readable by its owner alone, like the secret key.
    """

    admin_email: str = ""
    admin_password: str = ""
    api_key: str = ""
    enrolment_token: str = ""


def record_path(data_dir: Path) -> Path:
    """Where the record stands."""
    return data_dir / "local.json"


def read_record(data_dir: Path) -> LocalRecord:
    """The record, empty before the first start or when it can't be read."""
    try:
        found = json.loads(record_path(data_dir).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return LocalRecord()
    names = {field.name for field in fields(LocalRecord)}
    return LocalRecord(**{name: str(value) for name, value in found.items() if name in names})


def write_record(data_dir: Path, record: LocalRecord) -> None:
    """Replace the record in one step."""
    path = record_path(data_dir)
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(record), file, indent=2)
    fresh.replace(path)
