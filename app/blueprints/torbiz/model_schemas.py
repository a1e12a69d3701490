"""What torbiz's clients send and get when a machine serves models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from app.core.domain.beats import MAX_DEVICES
from app.core.services.llm_nodes import Hardware
from app.web.fields import RowId


def _as_text(value: Any) -> Any:
    """Numbers are taken too, and kept as the text that they were sent as."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value


GivenText = BeforeValidator(_as_text)
Word = Annotated[str, GivenText, Field(max_length=64)]
NodeToken = Annotated[str, Field(min_length=1, max_length=200)]
Reading = Annotated[float, Field(ge=-1_000_000, le=1_000_000, allow_inf_nan=False)]
NetworkBytes = Annotated[int, Field(ge=0, le=2**45)]
PciId = Annotated[int, Field(ge=0, le=0x7FFFFFFF)]


class ModelNodeBody(BaseModel):
    """One model of one machine; the same machine sends its `node_token` with the next one."""

    user: RowId | None = None
    model_name: Annotated[str, Field(strict=True, min_length=1, max_length=200)]
    gpu_info: Annotated[str, GivenText, Field(max_length=1000)] = ""
    cpu_name: Annotated[str, GivenText, Field(max_length=255)] = ""
    cpu_core: Word = ""
    cpu_frequency: Word = ""
    total_memory: Word = ""
    total_swap: Word = ""
    ram: Word = ""
    os_name: Word = ""
    os_version: Annotated[str, GivenText, Field(max_length=128)] = ""
    endpoint_url: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    engine: Literal["tgi", "vllm", "sglang", "llamacpp", "ollama", "openai"] | None = None
    node_token: NodeToken | None = None

    def hardware(self) -> Hardware:
        """The texts about the machine."""
        return Hardware(**{name: getattr(self, name) for name in Hardware.__slots__})


class ModelNode(BaseModel):
    """The node that the machine has become."""

    node_token: str
    node_id: int
    client_id: str
    gpu_id: int
    model_name: str


class DeviceValues(BaseModel):
    """What a device measured: percent, degrees Celsius, watts."""

    index: int = Field(ge=0, le=1023)
    name: Annotated[str, Field(max_length=200)] = ""
    vendor_id: PciId | None = None
    device_id: PciId | None = None
    memory_gb: Reading | None = None
    usage: Reading | None = None
    mem_usage: Reading | None = None
    temp: Reading | None = None
    power_usage: Reading | None = None
    power_limit_w: Reading | None = None


class ModelHeartbeatBody(BaseModel):
    """A sign of life."""

    node_token: NodeToken
    model_name: Annotated[str, Field(max_length=200)] | None = None
    cpu_usage: Reading | None = None
    memory_usage: Reading | None = None
    disk_usage: Reading | None = None
    network_rx: NetworkBytes | None = None
    network_tx: NetworkBytes | None = None
    devices: list[DeviceValues] | None = Field(None, max_length=MAX_DEVICES)


class Beaten(BaseModel):
    """The hub has it."""

    detail: str


class DeregisterBody(BaseModel):
    """Which node goes."""

    node_token: NodeToken


class AllModelsQuery(BaseModel):
    """`?format=objects`, or the setting's choice."""

    format: Literal["names", "objects"] | None = None


class ModelObject(BaseModel):
    """A model that the network knows."""

    model_id: str
    name: str
    description: str
    min_gpu_memory: int | None
    is_available: bool
