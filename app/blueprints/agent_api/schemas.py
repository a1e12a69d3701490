"""What agents send and get. Everything is bounded: a node's word is untrusted text."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.core.domain.beats import MAX_DEVICES, MAX_REPLICAS

ModelName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]
Text = Annotated[str, Field(max_length=200)]
Bytes = Annotated[int, Field(ge=0, le=2**53)]
NetworkBytes = Annotated[int, Field(ge=0, le=2**45)]
Reading = Annotated[float, Field(ge=-1_000_000, le=1_000_000, allow_inf_nan=False)]
PciId = Annotated[int, Field(ge=0, le=0x7FFFFFFF)]
Index = Annotated[int, Field(ge=0, le=1023)]


class AgentModel(BaseModel):
    """Unknown fields are fine: agents may be newer than the hub."""

    model_config = ConfigDict(extra="ignore")


class DeviceEntry(AgentModel):
    """A device in an inventory."""

    index: Index
    name: Text = ""
    kind: Literal["gpu", "cpu"] = "gpu"
    uuid: Annotated[str, Field(max_length=64)] | None = None
    pci_bus_id: Annotated[str, Field(max_length=64)] | None = None
    vendor_id: PciId | None = None
    device_id: PciId | None = None
    memory_bytes: Bytes | None = None
    power_limit_watts: Reading | None = None
    driver: Annotated[str, Field(max_length=64)] | None = None
    error: Annotated[str, Field(max_length=500)] | None = None


class InventoryEntry(AgentModel):
    """What a machine has."""

    cpu_name: Text = ""
    cpu_physical_cores: int | None = Field(None, ge=1, le=4096)
    cpu_logical_cores: int | None = Field(None, ge=1, le=8192)
    cpu_frequency_mhz: Reading | None = None
    memory_bytes: Bytes | None = None
    swap_bytes: Bytes | None = None
    disk_bytes: Bytes | None = None
    os_name: Text | None = None
    os_version: Text | None = None
    agent_version: Text | None = None
    engines: list[Annotated[str, Field(max_length=32)]] = Field([], max_length=32)
    devices: list[DeviceEntry] = Field([], max_length=MAX_DEVICES)


class EnrolBody(AgentModel):
    """A machine that joins."""

    name: Annotated[str, Field(max_length=64)] = ""
    client_id: Annotated[str, Field(max_length=40)] | None = None
    os_type: Annotated[str, Field(max_length=64)] = ""
    agent_version: Annotated[str, Field(max_length=32)] = ""
    inventory: InventoryEntry | None = None


class Enrolment(BaseModel):
    """The node it has become. The token is shown here alone."""

    node_id: int
    client_id: str
    node_token: str
    heartbeat_seconds: int
    name: str
    # Whether the hub asks over `GET /agent/v1/relay`.
    relay: bool = True


class InventoryBody(AgentModel):
    """PUT of an inventory."""

    inventory: InventoryEntry


class DeviceValues(AgentModel):
    """What a device measured: percent, degrees Celsius, watts. Absent is null, never 0."""

    index: Index
    name: Text = ""
    vendor_id: PciId | None = None
    device_id: PciId | None = None
    memory_gb: Reading | None = None
    usage: Reading | None = None
    mem_usage: Reading | None = None
    temp: Reading | None = None
    power_usage: Reading | None = None
    power_limit_w: Reading | None = None
    error: Annotated[str, Field(max_length=500)] | None = None


class ReplicaLoad(AgentModel):
    """How busy one engine is."""

    model_name: Annotated[str, Field(min_length=1, max_length=200)]
    state: Annotated[str, Field(max_length=16)] = "ready"
    running: int | None = Field(None, ge=0, le=1_000_000)
    waiting: int | None = Field(None, ge=0, le=1_000_000)


class HeartbeatBody(AgentModel):
    """A heartbeat. Network figures are bytes since the beat before."""

    sequence: Bytes = 0
    cpu_usage: Reading | None = None
    memory_usage: Reading | None = None
    disk_usage: Reading | None = None
    network_rx: NetworkBytes | None = None
    network_tx: NetworkBytes | None = None
    devices: list[DeviceValues] = Field([], max_length=MAX_DEVICES)
    replicas: list[ReplicaLoad] | None = Field(None, max_length=MAX_REPLICAS)
    uptime_seconds: Reading | None = None


class HeartbeatAnswer(BaseModel):
    """What the hub wants the agent to know at once."""

    ok: bool
    desired_revision: int
    draining: bool


class ReplicaEntry(AgentModel):
    """A model that the node serves. No `endpoint_url`: through the agent's relay."""

    model_name: ModelName
    served_name: Annotated[str, Field(max_length=200)] = ""
    engine: Literal["tgi", "vllm", "sglang", "llamacpp", "ollama", "openai"]
    state: Literal["starting", "ready", "failed", "stopped"]
    endpoint_url: Annotated[str, Field(max_length=500)] | None = None
    concurrency: int = Field(1, ge=1, le=10_000)
    context_tokens: int | None = Field(None, ge=1, le=2**31 - 1)
    engine_version: Annotated[str, Field(max_length=200)] | None = None
    error: Annotated[str, Field(max_length=4000)] | None = None
    api_key: Annotated[str, Field(max_length=300)] | None = None


class ReplicasBody(AgentModel):
    """Everything that the node serves; what is not in the list is gone."""

    replicas: list[ReplicaEntry] = Field(max_length=MAX_REPLICAS)


class Verdict(BaseModel):
    """Whether the hub takes a replica, and why not."""

    model_name: str
    accepted: bool
    reason: str | None


class Verdicts(BaseModel):
    """One for each replica."""

    replicas: list[Verdict]


class DesiredDownload(BaseModel):
    """A file to fetch."""

    id: int
    model_name: str
    version: str
    download_url: str
    checksum: str | None
    expected_size: int | None
    engine_type: int


class DesiredModel(BaseModel):
    """A model to serve."""

    model_name: str
    engine: str
    file: str | None


class DesiredState(BaseModel):
    """What the hub wants of the node."""

    revision: int
    name: str
    draining: bool
    # Whether the hub asks over `GET /agent/v1/relay`.
    relay: bool = True
    downloads: list[DesiredDownload]
    models: list[DesiredModel]


class DownloadEntry(AgentModel):
    """How far a download has got."""

    id: int | None = None
    model_name: ModelName
    downloaded_bytes: Bytes = 0
    total_bytes: Bytes | None = None
    percentage: float = Field(0.0, ge=0, le=100)
    speed_bps: Bytes = 0
    status: Literal["Pending", "Downloading", "Completed", "Failed"]
    error: Annotated[str, Field(max_length=1000)] | None = None


class DownloadsBody(AgentModel):
    """All downloads of the node."""

    downloads: list[DownloadEntry] = Field(max_length=64)


class LogLine(AgentModel):
    """One line of a log."""

    at: AwareDatetime
    level: Annotated[str, Field(max_length=16)] = "info"
    message: Annotated[str, Field(max_length=4096)]


class LogsBody(AgentModel):
    """Lines of the agent's own log, or of an engine's."""

    source: Literal["engine", "agent"]
    model_name: Annotated[str, Field(max_length=200)] | None = None
    lines: list[LogLine] = Field(max_length=200)


class GoodbyeBody(AgentModel):
    """A clean stop says nothing more."""

    reason: Any = None
