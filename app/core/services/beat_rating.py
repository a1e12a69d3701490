"""What the devices in a beat are rated at, remembered for a while by the ingester."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.beats import DeviceBeat
from app.core.domain.nodes import clean_text
from app.core.models import Device, Node
from app.core.services.device_types import (
    UNKNOWN,
    DeviceTable,
    Rating,
    device_key,
    load_table,
    rate_cpu,
)

REMEMBER_SECONDS = 30.0
MAX_NAME = 128


@dataclass(frozen=True, slots=True)
class _Registered:
    """A device as the node's inventory has it."""

    index: int
    kind: str
    name: str
    vendor_id: int | None
    device_id: int | None
    physical_cores: int | None


class Rater:
    """Knows the nodes, their registered devices and the device table."""

    def __init__(self) -> None:
        self._devices: dict[int, tuple[_Registered, ...]] = {}
        self._joined_on: dict[int, date] = {}
        self._rated: dict[tuple[Any, ...], dict[str, Any]] = {}
        # By node and what a beat calls its devices: mostly the same as in the beat before.
        self._rated_beats: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        self._table: DeviceTable | None = None
        self._forget_at = 0.0

    def learn(self, session: Session, node_ids: set[int]) -> None:
        """Look up those nodes that are not known yet."""
        if time.monotonic() >= self._forget_at or self._table is None:
            self._forget_at = time.monotonic() + REMEMBER_SECONDS
            self._devices.clear()
            self._rated.clear()
            self._rated_beats.clear()
            self._table = load_table(session)
        missing = [node_id for node_id in node_ids if node_id not in self._devices]
        for start in range(0, len(missing), 500):
            self._look_up(session, missing[start : start + 500])

    def knows(self, node_id: int) -> bool:
        """Whether there is such a node."""
        return node_id in self._devices

    def joined_on(self, node_id: int) -> date:
        """The day on which a known node joined."""
        return self._joined_on[node_id]

    def rate_all(self, node_id: int, devices: Sequence[DeviceBeat]) -> list[dict[str, Any]]:
        """What is kept of a beat's devices: enough to count points from it alone.

        A beat without devices stands for those that the node is registered with.
        """
        key = (
            node_id,
            *[(one.index, one.name, one.vendor_id, one.device_id) for one in devices],
        )
        found = self._rated_beats.get(key)
        if found is None:
            found = self._rated_beats[key] = self._rate_all(self._devices[node_id], devices)
        return found

    def _rate_all(
        self, registered: tuple[_Registered, ...], devices: Sequence[DeviceBeat]
    ) -> list[dict[str, Any]]:
        if not devices:
            return [self._rate(one) for one in registered]
        by_index = {one.index: one for one in registered}
        unique = {one.index: one for one in reversed(devices)}
        return [
            self._rate(_as_registered(one, by_index.get(one.index)))
            for one in sorted(unique.values(), key=lambda one: one.index)
        ]

    def _rate(self, device: _Registered) -> dict[str, Any]:
        key = (
            device.index, device.kind, device.name, device.vendor_id, device.device_id,
            device.physical_cores,
        )  # fmt: skip
        found = self._rated.get(key)
        if found is None:
            found = self._rated[key] = _entry(device, self._rating(device))
        return found

    def _rating(self, device: _Registered) -> Rating:
        if device.kind == "cpu":
            return rate_cpu(device.physical_cores)
        if self._table is None:
            return UNKNOWN
        return self._table.rate(device.vendor_id, device.device_id, device.name)

    def _look_up(self, session: Session, node_ids: list[int]) -> None:
        found: dict[int, list[_Registered]] = defaultdict(list)
        for row in session.execute(
            sa.select(
                Device.node_id, Device.index, Device.kind, Device.name, Device.vendor_id,
                Device.device_id, Device.physical_cores,
            ).where(Device.node_id.in_(node_ids)).order_by(Device.index)
        ):  # fmt: skip
            found[row[0]].append(_Registered(*row[1:]))
        for node_id, joined_on in session.execute(
            sa.select(Node.id, Node.joined_on).where(Node.id.in_(node_ids))
        ):
            self._devices[node_id] = tuple(found[node_id])
            self._joined_on[node_id] = joined_on


def _as_registered(beat: DeviceBeat, known: _Registered | None) -> _Registered:
    """A beat's device with what the inventory knows of the one in its place."""
    name = clean_text(beat.name, MAX_NAME) or (known.name if known else "")
    same = known is not None and name == known.name
    vendor_id, device_id = beat.vendor_id, beat.device_id
    if known is not None and same and device_id is None:
        vendor_id, device_id = known.vendor_id, known.device_id
    is_cpu = known is not None and same and known.kind == "cpu" and device_id is None
    return _Registered(
        index=beat.index,
        kind="cpu" if is_cpu else "gpu",
        name=name,
        vendor_id=vendor_id,
        device_id=device_id,
        physical_cores=known.physical_cores if known is not None and is_cpu else None,
    )


def _entry(device: _Registered, rating: Rating) -> dict[str, Any]:
    return {
        "index": device.index,
        "name": device.name,
        "vendor_id": device.vendor_id,
        "device_id": device.device_id,
        "type_id": rating.device_id,
        "tflops": rating.tflops,
        "multiplier_e4": rating.multiplier_e4,
        "key": device_key(device.vendor_id, device.device_id, device.name, rating),
    }
