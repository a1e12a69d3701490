"""Compiles the fake engine and the load generator on first use."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SOURCES = Path(__file__).parent / "native"
BUILD = Path(__file__).parent.parent / "build" / "bench"


class NoCompilerError(RuntimeError):
    """There is no C compiler, and the programs have not been built before."""


def tool(name: str) -> Path:
    """The path of a native program, built if it is missing or older than its source.

    Raises NoCompilerError, and CalledProcessError when the compiler refuses the source.
    """
    source, binary = SOURCES / f"{name}.c", BUILD / name
    newest = max(source.stat().st_mtime, (SOURCES / "wire.h").stat().st_mtime)
    if binary.exists() and binary.stat().st_mtime >= newest:
        return binary
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise NoCompilerError(
            f"{name} is written in C so that the load does not outweigh what it measures, and "
            "this machine has no compiler (cc, gcc or clang)"
        )
    BUILD.mkdir(parents=True, exist_ok=True)
    command = [compiler, "-O2", "-Wall", "-Wextra", "-o", str(binary), str(source), "-lm"]
    subprocess.run(command, check=True)
    return binary
