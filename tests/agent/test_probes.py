"""What the probes tell of machines of all kinds, NVML stubbed at its own functions."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest

from agent.inventory import Machine
from agent.probes.nvidia import NvidiaProbe
from agent.probes.system import System, counter_step

RTX_4090 = 0x268410DE
H100 = 0x233010DE

Counter = namedtuple("Counter", "bytes_recv bytes_sent")


def _refuse(error: int) -> Callable[..., Any]:
    def refuse(*_arguments: Any) -> Any:
        raise pynvml.NVMLError(error)

    return refuse


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Two healthy GPUs; a test changes what it is about."""

    def pci(handle: int) -> Any:
        return SimpleNamespace(
            pciDeviceId=(RTX_4090, H100)[handle], busId=f"00000000:0{handle + 1}:00.0".encode()
        )

    answers: dict[str, Any] = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlSystemGetDriverVersion": lambda: "550.54",
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda handle: ("NVIDIA GeForce RTX 4090", b"NVIDIA H100")[handle],
        "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}",
        "nvmlDeviceGetPciInfo": pci,
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(total=24 * 2**30, used=6 * 2**30),
        "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=37, memory=11),
        "nvmlDeviceGetTemperature": lambda _handle, _sensor: 61,
        "nvmlDeviceGetPowerUsage": lambda _: 123_456,
        "nvmlDeviceGetEnforcedPowerLimit": lambda _: 450_000,
    }

    def change(**changed: Any) -> None:
        for name, answer in changed.items():
            monkeypatch.setattr(pynvml, name, answer)

    change(**answers)
    return change


def test_gpus_are_told_whole(nvml: Callable[..., None]) -> None:
    first, second = NvidiaProbe().devices()
    assert first.as_inventory() == {
        "index": 0, "name": "NVIDIA GeForce RTX 4090", "kind": "gpu", "uuid": "GPU-0",
        "pci_bus_id": "00000000:01:00.0", "vendor_id": 4318, "device_id": 0x2684,
        "memory_bytes": 24 * 2**30, "power_limit_watts": 450.0, "driver": "550.54", "error": None,
    }  # fmt: skip
    assert first.as_heartbeat() == {
        "index": 0, "name": "NVIDIA GeForce RTX 4090", "vendor_id": 4318, "device_id": 0x2684,
        "memory_gb": 24.0, "usage": 37.0, "mem_usage": 25.0, "temp": 61.0, "power_usage": 123.5,
        "power_limit_w": 450.0, "error": None,
    }  # fmt: skip
    assert second.name == "NVIDIA H100"
    assert second.device_id == 0x2330


def test_what_a_card_does_not_answer_is_unknown_not_zero(nvml: Callable[..., None]) -> None:
    unsupported = _refuse(pynvml.NVML_ERROR_NOT_SUPPORTED)
    nvml(
        nvmlDeviceGetPowerUsage=unsupported,
        nvmlDeviceGetEnforcedPowerLimit=unsupported,
        nvmlDeviceGetUtilizationRates=unsupported,
        nvmlDeviceGetTemperature=unsupported,
        nvmlDeviceGetMemoryInfo=unsupported,
        nvmlDeviceGetPciInfo=unsupported,
    )
    told = NvidiaProbe().devices()[0].as_heartbeat()
    unknown = {
        "vendor_id",
        "device_id",
        "memory_gb",
        "usage",
        "mem_usage",
        "temp",
        "power_usage",
    }
    assert {name for name in unknown if told[name] is not None} == set()
    assert told["error"] is None


def test_a_broken_gpu_does_not_hide_the_others(nvml: Callable[..., None]) -> None:
    def handle(index: int) -> int:
        if index == 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return index

    nvml(nvmlDeviceGetHandleByIndex=handle)
    broken, well = NvidiaProbe().devices()
    assert broken.error is not None
    assert "lost" in broken.error.lower()
    assert broken.index == 0
    assert (well.name, well.error) == ("NVIDIA H100", None)


def test_a_machine_without_the_driver_has_no_gpus(nvml: Callable[..., None]) -> None:
    nvml(nvmlInit=_refuse(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    assert NvidiaProbe().devices() == []


def test_nvml_is_started_again_after_it_was_lost(nvml: Callable[..., None]) -> None:
    starts: list[int] = []
    nvml(nvmlInit=lambda: starts.append(1))
    probe = NvidiaProbe()
    assert len(probe.devices()) == 2
    nvml(nvmlDeviceGetCount=_refuse(pynvml.NVML_ERROR_UNKNOWN))
    assert probe.devices() == []
    nvml(nvmlDeviceGetCount=lambda: 1)
    assert len(probe.devices()) == 1
    assert len(starts) == 2


def test_a_machine_without_a_gpu_has_its_cpu_as_the_one_device(
    nvml: Callable[..., None], tmp_path: Path
) -> None:
    nvml(nvmlInit=_refuse(pynvml.NVML_ERROR_DRIVER_NOT_LOADED))
    machine = Machine(tmp_path)
    inventory = machine.inventory()
    (device,) = inventory["devices"]
    assert device["kind"] == "cpu"
    assert device["name"] == inventory["cpu_name"]
    assert device["vendor_id"] is None
    assert inventory["cpu_physical_cores"] >= 1
    beat = machine.beat()
    assert beat["devices"][0]["usage"] == beat["cpu_usage"]


def test_a_machine_with_gpus_does_not_count_its_cpu(
    nvml: Callable[..., None], tmp_path: Path
) -> None:
    kinds = {device["kind"] for device in Machine(tmp_path).inventory()["devices"]}
    assert kinds == {"gpu"}


@pytest.mark.parametrize(
    ("before", "after", "step"),
    [
        (100, 250, 150),
        (100, 100, 0),
        (2**32 - 10, 5, 15),  # a counter of 32 bits went round
        (5_000, 40, 40),  # the interface was reset
        (2**40, 40, 40),
    ],
)
def test_counters_that_wrap_or_reset(before: int, after: int, step: int) -> None:
    assert counter_step(before, after) == step


def test_network_bytes_are_those_since_the_beat_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = {"eth0": Counter(1_000, 500), "lo": Counter(9_000, 9_000)}
    monkeypatch.setattr(psutil, "net_io_counters", lambda **_: dict(seen))
    system = System(tmp_path)
    seen["eth0"] = Counter(1_700, 600)
    seen["lo"] = Counter(99_000, 99_000)
    load = system.sample(now=2e9)
    assert (load.network_received_bytes, load.network_sent_bytes) == (700, 100)
    seen["eth0"] = Counter(20, 10)
    seen["wg0"] = Counter(5, 5)
    load = system.sample(now=2e9)
    assert (load.network_received_bytes, load.network_sent_bytes) == (25, 15)
