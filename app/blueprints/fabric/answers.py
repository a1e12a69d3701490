"""What fabric's clients get, inside the envelope."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel

Data = TypeVar("Data")


class Envelope(BaseModel, Generic[Data]):
    """How every answer is wrapped."""

    success: bool
    data: Data
    message: str
    timestamp: str


class LoadedModel(BaseModel):
    """A model that a node serves now, as OpenAI's API lists models."""

    id: str
    object: str
    created: int
    owned_by: str


class ClientDevice(BaseModel):
    """A node in a list."""

    client_id: str
    client_name: str
    client_status: str
    os_type: str
    device_name: str
    tflops: float
    cpu_usage: float
    memory_usage: float
    storage_usage: float
    health: float
    last_online: str
    created_at: str
    uptime_days: int
    loaded_models: list[LoadedModel]


class ClientList(BaseModel):
    """Nodes, and how many there are."""

    total: int
    devices: list[ClientDevice]


class SystemInfo(BaseModel):
    """A node as a whole. `device_memsize` is in GB."""

    health: float
    cpu_usage: float
    memory_usage: float
    storage_usage: float
    device_memsize: float
    uptime_days: int


class DeviceInfo(BaseModel):
    """A device now: °C, percent, W."""

    device_index: int
    name: str
    temp: float
    usage: float
    mem_usage: float
    power_usage: float


class ClientDetail(BaseModel):
    """A node and its devices."""

    system_info: SystemInfo
    device_info: list[DeviceInfo]


class ClientStat(BaseModel):
    """A user's nodes in figures."""

    systems_total_number: int
    systems_online_number: int
    systems_maintenance_number: int
    systems_warnings_number: int
    total_tflops: float
    uptime_rate: float


class ClientMonitor(BaseModel):
    """A node's day."""

    client_id: str
    client_name: str | None
    created_at: str | None
    updated_at: str | None
    date: str | None
    avg_cpu_usage: float | None
    avg_memory_usage: float | None
    avg_disk_usage: float | None
    total_network_in_bytes: int | None
    total_network_out_bytes: int | None
    total_heartbeats: int | None
    last_heartbeat: str | None
    avg_network_in_bytes: float | None
    avg_network_out_bytes: float | None


class ClientHeartbeat(BaseModel):
    """A counted beat. Network figures are bytes since the beat before."""

    client_id: str
    client_name: str | None
    timestamp: str
    cpu_usage: float | None
    mem_usage: float | None
    disk_usage: float | None
    network_up: int
    network_down: int


class DownloadProgress(BaseModel):
    """How far a node's download has got; only `client_id` when none is known."""

    client_id: str
    model_name: str | None = None
    downloaded_bytes: int | None = None
    total_bytes: int | None = None
    percentage: float | None = None
    speed_bps: int | None = None
    status: str | None = None
    error: str | None = None
    timestamp: int | None = None


class DevicePoints(BaseModel):
    """What a device earned on a day."""

    client_id: str
    client_name: str
    date: str
    total_heartbeats: int
    device_name: str
    device_id: int
    points: float


class PointsList(BaseModel):
    """Rows of a page; the totals are those of all pages."""

    points: list[DevicePoints]
    total_points: float
    total_count: int
    page: int
    page_size: int


class ModelVersion(BaseModel):
    """A model version of the catalogue."""

    id: int
    name: str
    version: str
    version_code: int
    is_active: bool
    min_memory_mb: int | None
    min_gpu_memory_gb: int | None
    created_at: str
    download_url: str | None
    checksum: str | None
    expected_size: int | None


class ApkVersion(BaseModel):
    """A version of an Android app."""

    id: int
    package_name: str
    version_name: str
    version_code: int
    download_url: str
    channel: str | None
    min_os_version: str | None
    sha256: str | None
    file_size_bytes: int | None
    is_active: bool
    released_at: str | None
    created_at: str
    updated_at: str
