"""The agent as a wheel that pip installs on a provider's machine, made from the folder `agent`.

The hub hands out its own agent, so that both are of one version and a machine needs no copy
of the source. Format: https://packaging.python.org/specifications/binary-distribution-format/
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_VERSION = re.compile(r'^VERSION = "([^"]+)"$', re.MULTILINE)
# The earliest that a zip can say; the same files make the same wheel.
_MADE_AT = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class AgentPackage:
    """The wheel's name, as pip wants it, its bytes, and their SHA-256 in hex."""

    filename: str
    data: bytes
    sha256: str


@cache
def agent_package() -> AgentPackage:
    """The wheel of this hub's agent. Its version changes when any of its files does."""
    files = {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for path in sorted((ROOT / "agent").rglob("*.py"))
    }
    requirements = _pins(ROOT / "agent" / "requirements.txt")
    version = _version(files, requirements)
    info = f"weft_agent-{version}.dist-info"
    files[f"{info}/METADATA"] = _metadata(version, requirements)
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: weft\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    files[f"{info}/entry_points.txt"] = b"[console_scripts]\nweft-agent = agent.main:main\n"
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
    data = _zip(files)
    return AgentPackage(
        f"weft_agent-{version}-py3-none-any.whl", data, hashlib.sha256(data).hexdigest()
    )


@cache
def model_pin() -> str:
    """The package with the small model that an agent without an engine serves."""
    [pin] = _pins(ROOT / "requirements-model.txt")
    return pin


def _pins(path: Path) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    return [line for line in lines if line]


def _version(files: dict[str, bytes], requirements: list[str]) -> str:
    found = _VERSION.search(files["agent/__init__.py"].decode())
    if found is None:
        raise ValueError("agent/__init__.py names no VERSION")
    digest = hashlib.sha256("\n".join(requirements).encode())
    for name, data in files.items():
        digest.update(b"%s %d\n" % (name.encode(), len(data)) + data)
    return f"{found[1]}+{digest.hexdigest()[:12]}"


def _metadata(version: str, requirements: list[str]) -> bytes:
    lines = [
        "Metadata-Version: 2.1",
        "Name: weft-agent",
        f"Version: {version}",
        "Summary: Joins a machine to a Weft hub.",
        "License: Apache-2.0",
        "Requires-Python: >=3.11",
        *(f"Requires-Dist: {pin}" for pin in requirements),
    ]
    return ("\n".join(lines) + "\n").encode()


def _record(files: dict[str, bytes], own_name: str) -> bytes:
    lines = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}")
    return ("\n".join([*lines, f"{own_name},,"]) + "\n").encode()


def _zip(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _MADE_AT)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data)
    return out.getvalue()
