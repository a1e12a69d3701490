"""NVIDIA GPUs, through NVML."""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable
from typing import Any

from agent.probes.base import Device

log = logging.getLogger(__name__)


class NvidiaProbe:
    """All NVIDIA GPUs of this machine. NVML is loaded on first use, and again after it was lost.

    A machine without the driver has no GPUs. A GPU that can't be opened is an entry with
    its error, so that the others stay visible. A question that a card doesn't answer is None.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nvml: Any = None
        self._said_missing = False

    def devices(self) -> list[Device]:
        """The GPUs as they are now."""
        with self._lock:
            if not self._initialised():
                return []
            nvml = self._nvml
            try:
                count = nvml.nvmlDeviceGetCount()
            except nvml.NVMLError as error:
                # A driver update or a lost library: start over at the next look.
                log.warning("NVML stopped answering: %s", error)
                self._shut()
                return []
            driver = _ask(nvml, nvml.nvmlSystemGetDriverVersion)
            return [self._device(index, _text(driver)) for index in range(count)]

    def close(self) -> None:
        """Let go of NVML."""
        with self._lock:
            self._shut()

    def _initialised(self) -> bool:
        if self._nvml is not None:
            return True
        try:
            nvml = importlib.import_module("pynvml")
        except ImportError:
            return False
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            if not self._said_missing:
                log.info("No NVIDIA GPUs: %s", error)
                self._said_missing = True
            return False
        self._nvml = nvml
        return True

    def _shut(self) -> None:
        if self._nvml is not None:
            _ask(self._nvml, self._nvml.nvmlShutdown)
            self._nvml = None

    def _device(self, index: int, driver: str | None) -> Device:
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError as error:
            return Device(
                index=index, name=f"GPU {index}", kind="gpu", driver=driver, error=str(error)
            )

        def ask(question: Callable[..., Any], *more: Any) -> Any:
            return _ask(nvml, question, handle, *more)

        pci = ask(nvml.nvmlDeviceGetPciInfo)
        memory = ask(nvml.nvmlDeviceGetMemoryInfo)
        rates = ask(nvml.nvmlDeviceGetUtilizationRates)
        vendor_id, device_id = _pci_ids(pci)
        return Device(
            index=index,
            name=_text(ask(nvml.nvmlDeviceGetName)) or f"GPU {index}",
            kind="gpu",
            uuid=_text(ask(nvml.nvmlDeviceGetUUID)),
            pci_bus_id=_text(getattr(pci, "busId", None)),
            vendor_id=vendor_id,
            device_id=device_id,
            memory_bytes=int(memory.total) if memory is not None else None,
            power_limit_watts=_watts(ask(nvml.nvmlDeviceGetEnforcedPowerLimit)),
            driver=driver,
            usage_percent=float(rates.gpu) if rates is not None else None,
            memory_usage_percent=_share(memory),
            temperature_celsius=_number(
                ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU)
            ),
            power_watts=_watts(ask(nvml.nvmlDeviceGetPowerUsage)),
        )


def _ask(nvml: Any, question: Callable[..., Any], *arguments: Any) -> Any:
    """One NVML query; None where this card or driver doesn't answer it."""
    try:
        return question(*arguments)
    except nvml.NVMLError:
        return None


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return str(value).strip("\0 ") or None if value is not None else None


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _watts(milliwatts: Any) -> float | None:
    return None if milliwatts is None else round(float(milliwatts) / 1000, 1)


def _share(memory: Any) -> float | None:
    if memory is None or not memory.total:
        return None
    return round(100 * float(memory.used) / float(memory.total), 1)


def _pci_ids(pci: Any) -> tuple[int | None, int | None]:
    """Vendor and device as decimal numbers: NVML packs them as 0xDDDDVVVV."""
    packed = getattr(pci, "pciDeviceId", None)
    if not packed:
        return None, None
    return int(packed) & 0xFFFF, int(packed) >> 16
