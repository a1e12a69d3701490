"""CPU time and memory of sets of process trees, read from /proc (Linux)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

Roles = Mapping[str, Sequence[int]]


def _stat_fields(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the state on (the third); None when it is gone."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()


def process_tree(roots: Sequence[int]) -> list[int]:
    """The given processes and all of their descendants that live now."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat_fields(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], list(roots)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting.extend(children.get(pid, ()))
    return found


def cpu_seconds(roles: Roles) -> dict[str, float]:
    """User and system time used so far by each role's trees, in seconds.

    Children that ended count as soon as their parent has waited for them, so that a
    difference of two readings misses nothing of a well-behaved server.
    """
    totals = {}
    for role, roots in roles.items():
        ticks = 0
        for pid in process_tree(roots):
            if fields := _stat_fields(pid):
                ticks += sum(int(value) for value in fields[11:15])
        totals[role] = ticks / TICKS_PER_SECOND
    return totals


def pss_bytes(pid: int) -> int:
    """Proportional set size of one process in bytes; 0 when it is gone."""
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def memory(roles: Roles) -> dict[str, list[int]]:
    """PSS in bytes of every process of each role, largest first."""
    return {
        role: sorted((pss_bytes(pid) for pid in process_tree(roots)), reverse=True)
        for role, roots in roles.items()
    }


def difference(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What each role used between two readings of cpu_seconds, in seconds."""
    return {role: after[role] - before.get(role, 0.0) for role in after}
