"""Where research looks: a list of finders with one protocol.

A finder for the caller's own datasets and documents is one more class in one more file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from app.core.domain.research import Source

MOST_SOURCES = 12


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to look for, and on whose behalf."""

    account_id: int
    question: str
    sub_questions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a finder read. `url` is where a reader can look it up."""

    title: str
    url: str
    text: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a finder brought, and what the report should say about how it went."""

    findings: tuple[Finding, ...] = ()
    note: str = ""


class Finder(Protocol):
    """One kind of source."""

    def find(self, wanted: Wanted) -> Found:
        """Look. Never raises for what is merely not there: the note says so."""
        ...


@dataclass(frozen=True, slots=True)
class Gathered:
    """Everything that was read, numbered, and the finders' notes."""

    sources: tuple[Source, ...]
    notes: tuple[str, ...]


def gather(finders: Sequence[Finder], wanted: Wanted) -> Gathered:
    """Ask every finder, drop doubles, number what is left."""
    findings: list[Finding] = []
    notes: list[str] = []
    seen: set[str] = set()
    for finder in finders:
        found = finder.find(wanted)
        if found.note:
            notes.append(found.note)
        for finding in found.findings:
            if finding.url not in seen and finding.text.strip():
                seen.add(finding.url)
                findings.append(finding)
    sources = tuple(
        Source(number, finding.title or finding.url, finding.url, finding.text)
        for number, finding in enumerate(findings[:MOST_SOURCES], 1)
    )
    return Gathered(sources, tuple(notes))
