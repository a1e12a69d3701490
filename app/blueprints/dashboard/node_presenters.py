"""What pages show of nodes. All of it is what a machine says of itself: untrusted text."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flask import url_for

from app.blueprints.dashboard.presenters import Shown, node_run_row
from app.core.domain.nodes import is_draining
from app.web.pages import duration, percent, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.core.domain.beats import Beat, DeviceBeat
    from app.core.models import Run
    from app.core.services.inventory import DeviceView
    from app.core.services.node_reports import Live, Progress
    from app.core.services.nodes import NodeView
    from app.core.services.replicas import ReplicaView

ENGINE_NAMES = {
    "tgi": "TGI", "vllm": "vLLM", "sglang": "SGLang", "llamacpp": "llama.cpp",
    "ollama": "Ollama", "openai": "OpenAI-compatible",
}  # fmt: skip
VALID_STATUSES = (("valid", "Valid"), ("warning", "Warning"), ("invalid", "Invalid"))
REPLICA_TONES = {"ready": "ok", "starting": "busy", "failed": "bad"}
_LEVEL_TONES = {"error": "bad", "critical": "bad", "warning": "warn"}


def node_state(node: NodeView) -> Shown:
    """How a node is, in one badge."""
    if node.status == "offline":
        return Shown("Offline")
    if node.valid_status == "invalid":
        return Shown("Online, not valid", "bad")
    if node.status == "maintenance" or node.is_draining:
        return Shown("Maintenance", "warn")
    if node.status == "error":
        return Shown("Error", "bad")
    if node.valid_status == "warning":
        return Shown("Online, warning", "warn")
    return Shown("Online", "ok", live=True)


def node_row(node: NodeView, live: Live | None, runs_now: int) -> dict[str, Any]:
    """A line of the list of nodes."""
    about = [
        node.os_type,
        f"agent {node.agent_version}" if node.agent_version else "",
        node.owner,
    ]
    measured = _by_index(live.beat if live else None)
    return {
        "name": node.name,
        "href": url_for("dashboard.show_node", client_id=node.client_id),
        "sub": " · ".join(part for part in about if part),
        "state": node_state(node),
        "devices": [
            {
                "name": device.name or "Unknown device",
                "note": _device_note(device, measured.get(device.index)),
            }
            for device in node.devices
        ],
        "models": [_replica(replica) for replica in node.replicas],
        "runs_now": runs_now,
        "last_beat_at": node.last_beat_at,
    }


def node_page(
    node: NodeView,
    live: Live | None,
    *,
    runs: Sequence[Run],
    downloads: Sequence[Progress],
) -> dict[str, Any]:
    """Everything the node's own page shows."""
    beat = live.beat if live else None
    measured = _by_index(beat)
    return {
        "name": node.name,
        "client_id": node.client_id,
        "state": node_state(node),
        "is_draining": is_draining(node.wanted_status),
        "meters": [
            ("CPU", beat.cpu_usage if beat else None),
            ("Memory", beat.memory_usage if beat else None),
            ("Disk", beat.disk_usage if beat else None),
        ],
        "devices": [_device(device, measured.get(device.index)) for device in node.devices],
        "models": [_replica(replica) for replica in node.replicas],
        "facts": _facts(node, beat),
        "runs": [node_run_row(run) for run in runs],
        "valid_status": node.valid_status,
        "downloads": [download_row(one) for one in downloads],
    }


def _facts(node: NodeView, beat: Beat | None) -> list[tuple[str, Any]]:
    uptime = beat.uptime_seconds if beat else None
    return [
        ("Owner", node.owner),
        ("System", node.os_type or None),
        ("Agent", node.agent_version or None),
        ("Running for", duration(uptime) if uptime else None),
        ("Days with a heartbeat", node.uptime_days),
        ("Speed", f"{node.tflops:.1f} TFLOPS" if node.tflops else None),
        ("Standing", node.valid_status),
        ("Client id", node.client_id),
    ]


def _by_index(beat: Beat | None) -> dict[int, DeviceBeat]:
    return {device.index: device for device in beat.devices} if beat else {}


def _device_note(device: DeviceView, now: DeviceBeat | None) -> str:
    parts = [size(device.memory_bytes) if device.memory_bytes else ""]
    if now is not None and now.usage is not None:
        parts.append(percent(now.usage))
    if now is not None and now.temp is not None:
        parts.append(f"{now.temp:.0f} °C")
    return " · ".join(part for part in parts if part)


def _device(device: DeviceView, now: DeviceBeat | None) -> dict[str, Any]:
    power = now.power_usage if now else None
    limit = (now.power_limit_w if now else None) or device.power_limit_watts
    watts = f"{power:.0f} W" if power is not None else None
    return {
        "name": device.name or "Unknown device",
        "error": now.error if now else None,
        "memory": size(device.memory_bytes) if device.memory_bytes else None,
        "temperature": f"{now.temp:.0f} °C" if now and now.temp is not None else None,
        "power": f"{watts} of {limit:.0f} W" if watts and limit else watts,
        "meters": [
            ("Load", now.usage if now else None),
            ("Memory", now.mem_usage if now else None),
        ],
    }


def _replica(replica: ReplicaView) -> dict[str, Any]:
    return {
        "name": replica.model_name,
        "state": replica.state,
        "tone": REPLICA_TONES.get(replica.state, ""),
        "title": replica.error or ENGINE_NAMES.get(replica.engine, replica.engine),
        "engine": ENGINE_NAMES.get(replica.engine, replica.engine),
        "version": replica.engine_version,
        "places": replica.concurrency,
        "context": replica.context_tokens,
        "way": "Direct" if replica.endpoint_url else "Relay",
        "error": replica.error,
    }


def download_row(one: Progress) -> dict[str, Any]:
    """A download with its bar and how long it takes yet."""
    left = one.total_bytes - one.downloaded_bytes if one.total_bytes else None
    is_running = one.status == "Downloading"
    said = [one.status]
    if one.total_bytes:
        said.append(f"{size(one.downloaded_bytes)} of {size(one.total_bytes)}")
    if is_running and one.speed_bps:
        said.append(f"{size(one.speed_bps)}/s")
        if left is not None:
            said.append(f"{duration(max(1, left // one.speed_bps))} left")
    return {
        "model_name": one.model_name,
        "said": " · ".join(said),
        "percentage": f"{one.percentage:.0f}",
        "is_shown": is_running or one.status == "Pending",
        "error": one.error,
    }


def log_line(line: dict[str, Any]) -> dict[str, Any]:
    """A line of a log."""
    at = datetime.fromisoformat(str(line["at"]))
    return {
        "at": f"{at.astimezone(UTC):%H:%M:%S}",
        "level": line["level"],
        "tone": _LEVEL_TONES.get(str(line["level"]).lower(), ""),
        "source": line["model_name"] or line["source"],
        "message": line["message"],
    }
