"""The device table: who is known, by what, and how fast it is."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from app.core.domain.nodes import ENGINE_KINDS
from app.core.engines import registry
from app.core.services import device_types
from app.core.services.device_types import KnownType, load_table, rate_cpu, shipped_types

NVIDIA = 0x10DE


class TestShippedTable:
    def test_names_a_source_and_a_speed_for_each_device(self) -> None:
        for row in shipped_types():
            assert row.source
            assert row.name
            assert row.tflops > 0

    def test_knows_no_pci_id_twice(self) -> None:
        ids = [(row.vendor_id, row.device_id) for row in shipped_types() if row.device_id]
        assert len(ids) == len(set(ids))

    def test_gives_one_speed_to_one_name(self) -> None:
        speeds: dict[str, float] = {}
        for row in shipped_types():
            name = device_types.plain_name(row.name)
            assert speeds.setdefault(name, row.tflops) == row.tflops


class TestRating:
    @pytest.mark.parametrize(
        ("vendor_id", "device_id", "name", "multiplier_e4"),
        [
            (NVIDIA, 0x2684, "", 10_000),
            (None, 0x2684, "", 10_000),
            (None, None, "NVIDIA GeForce RTX 4090", 10_000),
            (None, None, "rtx 4090", 10_000),
            (None, None, "GeForce(TM) RTX   4090", 10_000),
            (NVIDIA, 0x2204, "whatever it says", 4310),
            (None, None, "NVIDIA GeForce RTX 4090 Laptop GPU", 500),
            (0x1002, 0x2684, "", 500),
            (None, None, "", 500),
            (NVIDIA, 1, "M1", 315),
        ],
    )
    def test_is_by_pci_id_else_by_name(
        self, session: Session, vendor_id: int | None, device_id: int | None, name: str,
        multiplier_e4: int,
    ) -> None:  # fmt: skip
        rating = load_table(session).rate(vendor_id, device_id, name)
        assert rating.multiplier_e4 == multiplier_e4

    def test_an_admins_row_stands_over_the_shipped_one(self, session: Session) -> None:
        faster = KnownType(NVIDIA, 0x2684, "NVIDIA", "NVIDIA GeForce RTX 4090", 165.2, "test")
        for tflops in (1.0, 165.2):
            device_types.set_type(
                session, KnownType(NVIDIA, 0x2684, "NVIDIA", faster.name, tflops, "test")
            )
        table = load_table(session)
        assert table.rate(NVIDIA, 0x2684, "").multiplier_e4 == 20_000
        assert table.rate(None, None, "RTX 4090").multiplier_e4 == 20_000

    def test_a_cpu_earns_by_its_cores(self) -> None:
        assert rate_cpu(64).multiplier_e4 == round(6.4 / 82.6 * 10_000)
        assert rate_cpu(None).device_id == 0


def test_nodes_may_name_every_engine_that_there_is_a_client_for() -> None:
    assert set(ENGINE_KINDS) == set(registry.ENGINE_KINDS)
