"""How fast a device is: the table that comes with Weft, and what an admin added to it."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.models import DeviceType

TABLE = Path(__file__).parents[1] / "data" / "device_types.csv"
# The multiplier of a device is its tflops over those of this one, the GeForce RTX 4090.
REFERENCE_TFLOPS = 82.6
UNKNOWN_MULTIPLIER = 0.05
CPU_TFLOPS_PER_CORE = 0.1
E4 = 10_000
_NOISE = re.compile(r"\((r|tm|c)\)|[®™©]|\b(nvidia|geforce|amd|radeon|intel|apple)\b")


@dataclass(frozen=True, slots=True)
class KnownType:
    """A row of the device table."""

    vendor_id: int
    device_id: int
    vendor: str
    name: str
    tflops: float
    source: str


@dataclass(frozen=True, slots=True)
class Rating:
    """What points of one device are counted by. `tflops` is None when nobody knows."""

    tflops: float | None
    device_id: int = 0

    @property
    def multiplier_e4(self) -> int:
        """Points an hour, in ten-thousandths."""
        if self.tflops is None:
            return round(UNKNOWN_MULTIPLIER * E4)
        return round(self.tflops / REFERENCE_TFLOPS * E4)


UNKNOWN = Rating(None)


class DeviceTable:
    """Finds a device's type by its PCI ids, else by its name."""

    def __init__(self, rows: Iterable[KnownType]) -> None:
        self._by_ids: dict[tuple[int, int], KnownType] = {}
        self._by_device: dict[int, KnownType | None] = {}
        self._by_name: dict[str, KnownType] = {}
        for row in rows:  # a later row stands for an earlier one
            self._add_name(row)
            if not row.device_id:
                continue  # its PCI id is that of other, slower cards too: by name alone
            self._by_ids[row.vendor_id, row.device_id] = row
            other = self._by_device.get(row.device_id, row)
            is_same = other is not None and other.vendor_id == row.vendor_id
            self._by_device[row.device_id] = row if is_same else None

    def _add_name(self, row: KnownType) -> None:
        known = self._by_name.setdefault(plain_name(row.name), row)
        if known.tflops != row.tflops:  # of several ids with one name, the first is its id
            self._by_name[plain_name(row.name)] = row

    def rate(self, vendor_id: int | None, device_id: int | None, name: str) -> Rating:
        """The rating of a GPU."""
        found: KnownType | None = None
        if device_id:
            found = (
                self._by_ids.get((vendor_id, device_id))
                if vendor_id
                else self._by_device.get(device_id)
            )
        found = found or self._by_name.get(plain_name(name))
        return Rating(found.tflops, found.device_id) if found else UNKNOWN


def rate_cpu(physical_cores: int | None) -> Rating:
    """The rating of a machine without a GPU."""
    return Rating(round((physical_cores or 1) * CPU_TFLOPS_PER_CORE, 4))


def device_key(vendor_id: int | None, device_id: int | None, name: str, rating: Rating) -> str:
    """What tells two devices apart that had the same place in a node on one day."""
    text = f"{vendor_id}:{device_id}:{name}:{rating.multiplier_e4}"
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def plain_name(name: str) -> str:
    """A device's name without its maker's flourishes, for comparing."""
    return " ".join(_NOISE.sub(" ", name.lower()).split())


@cache
def shipped_types() -> tuple[KnownType, ...]:
    """The table that comes with Weft."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        return tuple(
            KnownType(
                int(row["vendor_id"], 0), int(row["device_id"], 0), row["vendor"], row["name"],
                float(row["tflops"]), row["source"],
            )
            for row in csv.DictReader(file)
        )  # fmt: skip


def load_table(session: Session) -> DeviceTable:
    """The shipped table with the admin's rows over it."""
    added = session.execute(
        sa.select(
            DeviceType.vendor_id, DeviceType.device_id, DeviceType.vendor, DeviceType.name,
            DeviceType.tflops, DeviceType.source,
        ).order_by(DeviceType.id)
    )  # fmt: skip
    return DeviceTable((*shipped_types(), *(KnownType(*row) for row in added)))


def set_type(session: Session, new: KnownType) -> None:
    """Add a kind of device, or change one. Days already counted keep their multiplier."""
    row = session.scalar(
        sa.select(DeviceType).where(
            DeviceType.vendor_id == new.vendor_id, DeviceType.device_id == new.device_id
        )
    )
    if row is None:
        row = DeviceType(vendor_id=new.vendor_id, device_id=new.device_id)
        session.add(row)
    row.vendor, row.name, row.tflops, row.source = new.vendor, new.name, new.tflops, new.source
    session.flush()
