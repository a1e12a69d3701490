"""The report of a research job on its way to its readers."""

from __future__ import annotations

from typing import Any

from app.core.domain.research import StepState
from app.core.services.research_work import ResearchClaim, Step
from app.core.stream import STEP, TEXT, partial_text
from worker.context import WorkerContext


class Report:
    """The text of one asking, streamed as it grows.

    A report is made the same way every time from what its steps have come to. So whoever
    takes a job over makes it again from the beginning, and what readers have had is skipped:
    what is stored in the end is what was streamed.
    """

    def __init__(self, context: WorkerContext, claim: ResearchClaim) -> None:
        """Raises redis.RedisError when an earlier worker's part can't be read."""
        self._writer = context.writer
        self._claim = claim
        self._had = ""
        if claim.attempt > 1:
            self._had, last = partial_text(context.store, claim.stream_id)
            self._writer.resume(claim.stream_id, after=last)
        self._made = 0
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        """All that was streamed."""
        return self._had + "".join(self._parts)

    def add(self, text: str) -> None:
        """The next part of the report."""
        new = text[max(0, len(self._had) - self._made) :]
        self._made += len(text)
        if new:
            self._parts.append(new)
            self._write(TEXT, new)

    def step(self, step: Step, state: StepState) -> None:
        """Tell readers how a step stands."""
        self._write(STEP, {"step": step.name, "title": step.title, "state": state.value})

    def speak(self, step: Step) -> None:
        """The text from here on is this step's."""
        self._write(STEP, {"step": step.name, "title": step.title, "speaks": True})

    def end(self, value: dict[str, Any]) -> None:
        """Nothing follows."""
        self._writer.end(self._claim.stream_id, value, reply_to=self._claim.reply_to)

    def discard(self) -> None:
        """Somebody else goes on with it."""
        self._writer.discard(self._claim.stream_id)

    def _write(self, kind: str, value: Any) -> None:
        self._writer.write(self._claim.stream_id, kind, value, reply_to=self._claim.reply_to)
