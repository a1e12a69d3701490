"""Where research looks: a list of finders with one protocol."""

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
    """Ask every finder, drop doubles, share the places among them, number what is left."""
    brought: list[list[Finding]] = []
    notes: list[str] = []
    seen: set[str] = set()
    for finder in finders:
        found = finder.find(wanted)
        if found.note:
            notes.append(found.note)
        fresh = []
        for finding in found.findings:
            if finding.url not in seen and finding.text.strip():
                seen.add(finding.url)
                fresh.append(finding)
        brought.append(fresh)
    shares = share_places([len(one) for one in brought], MOST_SOURCES)
    kept = [one for found, share in zip(brought, shares, strict=True) for one in found[:share]]
    sources = tuple(
        Source(number, finding.title or finding.url, finding.url, finding.text)
        for number, finding in enumerate(kept, 1)
    )
    return Gathered(sources, tuple(notes))


def share_places(wanted: Sequence[int], places: int) -> list[int]:
    """How many places each gets of those that it wants: one at a time, in turns."""
    shares = [0] * len(wanted)
    while places > 0 and any(share < most for share, most in zip(shares, wanted, strict=True)):
        for at, most in enumerate(wanted):
            if shares[at] < most and places > 0:
                shares[at] += 1
                places -= 1
    return shares
