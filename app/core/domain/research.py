"""Deep research: a question, the steps that answer it, the sources it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class ResearchState(StrEnum):
    """queued → running → succeeded | failed. A dead worker's job is taken over as it is."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        return self in (ResearchState.SUCCEEDED, ResearchState.FAILED)


class StepKind(StrEnum):
    """What a step does, in the order in which they come."""

    LOOK = "look"  # a vision model says what the image shows
    PLAN = "plan"
    GATHER = "gather"
    ANSWER = "answer"
    WRITE = "write"


class StepState(StrEnum):
    """waiting → running → done | failed."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        return self in (StepState.DONE, StepState.FAILED)


@dataclass(frozen=True, slots=True)
class Source:
    """Something that was read. `number` is how the report cites it, from 1 on."""

    number: int
    title: str
    url: str
    text: str

    def to_json(self) -> dict[str, Any]:
        """As it is stored with the step that found it."""
        return {"number": self.number, "title": self.title, "url": self.url, "text": self.text}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Source:
        """The opposite of `to_json`."""
        return cls(stored["number"], stored["title"], stored["url"], stored.get("text", ""))
