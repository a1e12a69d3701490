"""LiteLLM's proxy as the peer: in its own virtual environment, one version, no real key."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import processes
from benchmarks.processes import Stack

# Pinned exactly: later releases were reported as tampered with, and it is only a peer to
# measure. It never becomes a dependency, so it lives in an environment of its own.
REQUIREMENT = "litellm[proxy]==1.106.2"
ENVIRONMENT = Path(__file__).parent.parent / ".venv-litellm"
MASTER_KEY = "sk-benchmark-only"
START_SECONDS = 120.0
ENV = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
    "NO_PROXY": "127.0.0.1",
}


def installed() -> bool:
    """Whether the peer's environment is there."""
    return (ENVIRONMENT / "bin" / "litellm").exists()


def install() -> None:
    """Make the environment (some 700 MB, a few minutes); raises CalledProcessError."""
    subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
    pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet", REQUIREMENT]
    subprocess.run(pip, check=True)


def configuration(engine_url: str, models: tuple[str, ...]) -> dict[str, object]:
    """A proxy with nothing but routing: no database, no retries, no telemetry."""
    return {
        "model_list": [
            {
                "model_name": model,
                "litellm_params": {
                    "model": f"hosted_vllm/{model}",  # its provider for such an engine, and the cheaper
                    "api_base": f"{engine_url}/v1",
                    "api_key": "none",
                },
            }
            for model in models
        ],
        "litellm_settings": {"num_retries": 0, "telemetry": False, "request_timeout": 600},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "general_settings": {"master_key": MASTER_KEY},
    }


def start(engine_url: str, models: tuple[str, ...], *, workers: int = 1) -> Stack:
    """Install if needed, start the proxy before the engine and wait until it is ready.

    Raises NotReadyError.
    """
    if not installed():
        install()
    folder = tempfile.TemporaryDirectory(prefix="weft-bench-litellm-")
    config = Path(folder.name) / "config.yaml"
    config.write_text(json.dumps(configuration(engine_url, models)))  # JSON is YAML
    port = processes.free_port()
    command = [
        *(str(ENVIRONMENT / "bin" / "litellm"), "--config", str(config)),
        *("--host", "127.0.0.1", "--port", str(port), "--num_workers", str(workers)),
        *("--telemetry", "False"),
    ]
    service = processes.start(command, Path(folder.name) / "log", ENV, Path(folder.name))
    base_url = f"http://127.0.0.1:{port}"
    try:
        service.wait_until(
            lambda: processes.answers(f"{base_url}/health/liveliness"), START_SECONDS
        )
    except processes.NotReadyError:
        service.stop()
        raise
    return Stack(
        name="litellm" if workers == 1 else f"litellm-{workers}w",
        base_url=base_url,
        api_key=MASTER_KEY,
        pids_by_role={"litellm": [service.pid]},
        services=[service],
        on_stop=folder.cleanup,
        can_pause=True,
    )
