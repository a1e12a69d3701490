"""fabric's envelope and spellings."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

from flask import Response
from pydantic import BaseModel

from app.blueprints.fabric import answers
from app.core.clock import utc_now
from app.core.domain.beats import DeviceBeat
from app.core.domain.errors import InvalidInput
from app.core.services import apks, catalog, monitoring, node_reports, points
from app.core.services.nodes import NodeView
from app.core.services.points import E4
from app.web.validation import json_response

_GIB = 2**30
_DAY = re.compile(r"^\d{4}-\d\d-\d\d$", re.ASCII)
_DATE_TIME = re.compile(
    r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)?$",
    re.ASCII | re.IGNORECASE,
)
_A_DAY = timedelta(days=1)


def envelope(
    data: Any, *, message: str = "success", status: int = 200, success: bool = True
) -> Response:
    """`{success, data, message, timestamp}`, as every answer of this API is wrapped."""
    body = {
        "success": success, "data": _plain(data), "message": message,
        "timestamp": moment(utc_now()),
    }  # fmt: skip
    return json_response(body, status)


def _plain(data: Any) -> Any:
    if isinstance(data, BaseModel):
        return data.model_dump(mode="json")
    if isinstance(data, list):
        return [_plain(one) for one in data]
    return data


def moment(at: datetime) -> str:
    """`2026-02-03T06:35:28.784161Z`."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def optional_moment(at: datetime | None) -> str | None:
    """The same, or null."""
    return moment(at) if at is not None else None


def day_of(text: str | None, field: str) -> date | None:
    """A day as `YYYY-MM-DD`. Raises InvalidInput."""
    if text is None:
        return None
    try:
        if not _DAY.match(text.strip()):
            raise ValueError
        return date.fromisoformat(text.strip())
    except ValueError:
        raise InvalidInput(f"{field}: must be a date, YYYY-MM-DD", field=field) from None


def span_of(start: str | None, end: str | None) -> monitoring.Span:
    """A span from two dates: whole days with both ends in it, or moments, the end excluded.

    Raises InvalidInput.
    """
    began, ended = _bound(start, "start_date"), _bound(end, "end_date")
    if end is not None and ended is not None and _DAY.match(end.strip()):
        ended += timedelta(days=1)
    return monitoring.Span(began, ended)


def _bound(text: str | None, field: str) -> datetime | None:
    """A moment without a zone means UTC; a `+` that the URL turned into a space is one."""
    if text is None:
        return None
    text = text.strip().replace(" ", "+")
    try:
        if not (_DAY.match(text) or _DATE_TIME.match(text)):
            raise ValueError
        found = datetime.fromisoformat(text.upper())
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
        return found.astimezone(UTC) + _A_DAY - _A_DAY  # a day must fit after it
    except (ValueError, OverflowError):
        message = f"{field}: must be YYYY-MM-DD or an RFC 3339 date-time"
        raise InvalidInput(message, field=field) from None


def client_device(
    node: NodeView, live: node_reports.Live | None, health: float
) -> answers.ClientDevice:
    """A node in a list."""
    beat = live.beat if live else None
    return answers.ClientDevice(
        client_id=node.client_id,
        client_name=node.name,
        client_status=node.status,
        os_type=node.os_type,
        device_name=node.devices[0].name if node.devices else "",
        tflops=round(node.tflops, 2),
        cpu_usage=_number(beat.cpu_usage if beat else None),
        memory_usage=_number(beat.memory_usage if beat else None),
        storage_usage=_number(beat.disk_usage if beat else None),
        health=round(health, 2),
        last_online=moment(node.last_beat_at or node.created_at),
        created_at=moment(node.created_at),
        uptime_days=node.uptime_days,
        loaded_models=[
            answers.LoadedModel(
                id=replica.model_name,
                object="model",
                created=int(replica.created_at.timestamp()),
                owned_by=node.owner,
            )
            for replica in node.replicas
            if replica.state == "ready" and node.status != "offline"
        ],
    )


def client_detail(
    node: NodeView, live: node_reports.Live | None, health: float
) -> answers.ClientDetail:
    """A node and its devices."""
    beat = live.beat if live else None
    memory = sum(device.memory_bytes or 0 for device in node.devices)
    measured = {one.index: one for one in beat.devices} if beat else {}
    return answers.ClientDetail(
        system_info=answers.SystemInfo(
            health=round(health, 2),
            cpu_usage=_number(beat.cpu_usage if beat else None),
            memory_usage=_number(beat.memory_usage if beat else None),
            storage_usage=_number(beat.disk_usage if beat else None),
            device_memsize=round(memory / _GIB, 2),
            uptime_days=node.uptime_days,
        ),
        device_info=[
            _device_info(device.index, device.name, measured.get(device.index))
            for device in node.devices
        ],
    )


def _device_info(index: int, name: str, now: DeviceBeat | None) -> answers.DeviceInfo:
    return answers.DeviceInfo(
        device_index=index,
        name=name,
        temp=_number(now.temp if now else None),
        usage=_number(now.usage if now else None),
        mem_usage=_number(now.mem_usage if now else None),
        power_usage=_number(now.power_usage if now else None),
    )


def client_stat(stat: monitoring.FleetStat) -> answers.ClientStat:
    """A user's nodes in figures."""
    return answers.ClientStat(
        systems_total_number=stat.total,
        systems_online_number=stat.online,
        systems_maintenance_number=stat.maintenance,
        systems_warnings_number=stat.warnings,
        total_tflops=stat.tflops,
        uptime_rate=stat.uptime_rate,
    )


def client_monitor(row: monitoring.DayRow) -> answers.ClientMonitor:
    """A node's day. What comes in was received, what goes out was sent."""
    beats = row.heartbeats or 1
    return answers.ClientMonitor(
        client_id=row.node.client_id,
        client_name=row.node.name,
        created_at=moment(row.first_at),
        updated_at=moment(row.last_at),
        date=row.day.isoformat(),
        avg_cpu_usage=row.cpu_usage,
        avg_memory_usage=row.memory_usage,
        avg_disk_usage=row.disk_usage,
        total_network_in_bytes=row.network_rx,
        total_network_out_bytes=row.network_tx,
        total_heartbeats=row.heartbeats,
        last_heartbeat=moment(row.last_at),
        avg_network_in_bytes=round(row.network_rx / beats, 2),
        avg_network_out_bytes=round(row.network_tx / beats, 2),
    )


def client_heartbeat(row: monitoring.BeatRow) -> dict[str, Any]:
    """A counted beat; plain, because there may be thousands."""
    return {
        "client_id": row.node.client_id,
        "client_name": row.node.name,
        "timestamp": moment(row.at),
        "cpu_usage": row.cpu_usage,
        "mem_usage": row.memory_usage,
        "disk_usage": row.disk_usage,
        "network_up": row.network_tx,
        "network_down": row.network_rx,
    }


def download_progress(
    client_id: str, found: node_reports.Progress | None
) -> answers.DownloadProgress:
    """How far a node's download has got."""
    if found is None:
        return answers.DownloadProgress(client_id=client_id)
    return answers.DownloadProgress(
        client_id=client_id,
        model_name=found.model_name,
        downloaded_bytes=found.downloaded_bytes,
        total_bytes=found.total_bytes,
        percentage=found.percentage,
        speed_bps=found.speed_bps,
        status=found.status,
        error=found.error,
        timestamp=found.timestamp,
    )


def points_list(page: points.PointsPage, number: int, size: int) -> answers.PointsList:
    """A page of points. Sums are made of ten-thousandths, so that they are exact."""
    return answers.PointsList(
        points=[
            answers.DevicePoints(
                client_id=row.client_id,
                client_name=row.client_name,
                date=row.day.isoformat(),
                total_heartbeats=row.heartbeats,
                device_name=row.device_name,
                device_id=row.device_id,
                points=row.points_e4 / E4,
            )
            for row in page.rows
        ],
        total_points=page.total_e4 / E4,
        total_count=page.count,
        page=number,
        page_size=size,
    )


def model_version(entry: catalog.CatalogEntry) -> answers.ModelVersion:
    """A model version; the engine is not shown in this API."""
    return answers.ModelVersion(
        id=entry.id,
        name=entry.name,
        version=entry.version,
        version_code=entry.version_code,
        is_active=entry.is_active,
        min_memory_mb=entry.min_memory_mb,
        min_gpu_memory_gb=entry.min_gpu_memory_gb,
        created_at=moment(entry.created_at),
        download_url=entry.download_url,
        checksum=entry.checksum,
        expected_size=entry.expected_size,
    )


def apk_version(apk: apks.Apk) -> answers.ApkVersion:
    """A version of an Android app."""
    return answers.ApkVersion(
        id=apk.id,
        package_name=apk.package_name,
        version_name=apk.version_name,
        version_code=apk.version_code,
        download_url=apk.download_url,
        channel=apk.channel,
        min_os_version=apk.min_os_version,
        sha256=apk.sha256,
        file_size_bytes=apk.file_size_bytes,
        is_active=apk.is_active,
        released_at=optional_moment(apk.released_at),
        created_at=moment(apk.created_at),
        updated_at=moment(apk.updated_at),
    )


def _number(value: float | None) -> float:
    """This API knows no null here: what was not measured is 0."""
    return round(value, 2) if value is not None else 0.0
