"""What an APK says of itself, read in a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from app.core.domain.errors import InvalidInput

INSPECTOR = Path(__file__).with_name("apk_inspector.py")
INSPECT_SECONDS = 90
_PACKAGE = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)+")
_MAX_VERSION_CODE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ApkFacts:
    """`signer_sha256`: of the certificate whose signature over the file is right, in hex."""

    package_name: str
    version_code: int
    version_name: str
    min_sdk: str
    signer_sha256: str


def read_apk(path: Path) -> ApkFacts:
    """Read and verify an APK. Raises InvalidInput (field `apk`) with a sentence for people."""
    try:
        done = subprocess.run(  # noqa: S603 - our own program; the path is ours too
            [sys.executable, "-I", str(INSPECTOR), str(path.resolve())],
            capture_output=True, timeout=INSPECT_SECONDS, env={"LANG": "C.UTF-8"}, check=False,
        )  # fmt: skip
        found = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):  # killed: out of its time or memory
        raise _bad("This file can't be read as an APK.") from None
    if "error" in found:
        raise _bad(str(found["error"]))
    facts = ApkFacts(**{**found, "version_name": str(found["version_name"])[:64]})
    if len(facts.package_name) > 255 or not _PACKAGE.fullmatch(facts.package_name):
        raise _bad("Its package name is not one that Android takes.")
    if not 0 < facts.version_code <= _MAX_VERSION_CODE:
        raise _bad("Its version code is not one that Android takes.")
    return facts


def _bad(message: str) -> InvalidInput:
    return InvalidInput(message, field="apk")
