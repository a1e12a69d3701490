"""Asking models on behalf of a research step: each call is a run like any other."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import gevent
import redis
from sqlalchemy.orm import Session

from app.core.clock import utc_now
from app.core.domain.errors import DomainError, ModelNotFound, NoCapacity
from app.core.domain.runs import RunRequest, RunState, Sampling
from app.core.research.cleaning import Cleaner
from app.core.research.prompts import Ask, ask_to_continue
from app.core.services import research_models, research_work, runs
from app.core.services.research_models import ResearchModels
from app.core.services.research_work import ResearchClaim, RunOutcome, Step, StepRun
from app.core.services.runs import Availability, RunLimits
from app.core.stream import (
    LOST,
    TEXT,
    StreamHub,
    Subscription,
    end_unwritten,
    send_control,
)
from worker.context import WorkerContext

log = logging.getLogger(__name__)

Outcome = TypeVar("Outcome")
Sink = Callable[[str], None]

MOST_TRIES = 4
MOST_SHRINKS = 3
NO_NODE_SECONDS = 120.0
PAUSE_SECONDS = 1.0
LOOK_SECONDS = 3.0
_FINAL_CODES = frozenset({"engine_rejected", "invalid", "forbidden"})


NO_ANSWER = RunOutcome("failed", "", None, "empty", "The model gave no answer.")


class Lost(Exception):
    """The job is not this worker's any more."""


class StepFailed(Exception):
    """A step has no answer. `code` is that of the run that failed last."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Answer:
    """What a step's model wrote. `is_cut`: it had more to say."""

    text: str
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Question:
    """What a step asks: `make(shrink)` fits it into half the room for each refusal."""

    step: Step
    make: Callable[[int], Ask]
    source_count: int = 0
    needs_eyes: bool = False


class Asker:
    """The calls of one job."""

    def __init__(
        self, context: WorkerContext, claim: ResearchClaim, hub: StreamHub,
        availability: Availability,
    ) -> None:  # fmt: skip
        self._context = context
        self._claim = claim
        self._hub = hub
        self._availability = availability

    def do(self, action: Callable[[Session], Outcome]) -> Outcome:
        """A transaction that happens only while the job is ours. Raises Lost."""
        lease = self._context.settings.run_lease_seconds

        def held(session: Session) -> tuple[bool, Outcome | None]:
            if not research_work.hold(session, self._claim, lease_seconds=lease, now=utc_now()):
                return False, None
            return True, action(session)

        is_ours, result = self._context.ledger.do(held)
        if not is_ours:
            raise Lost
        return result  # type: ignore[return-value]

    def answer(self, question: Question, sink: Sink) -> Answer:
        """Ask until there is an answer, going on where a lost run broke off.

        Runs that an earlier worker began are followed, not asked again. Raises StepFailed.
        """
        writing = _Writing(sink, question.source_count)
        shrink = failures = turn = 0
        while True:
            run, is_new = self._run_of_turn(question, turn, shrink, writing.text)
            turn += 1
            outcome = self._follow(run, writing, is_new=is_new)
            if writing.is_circular:
                writing.finish()
                return Answer(writing.text, is_cut=False)
            if outcome.state == RunState.SUCCEEDED:
                if writing.finish():
                    return Answer(writing.text, outcome.finish_reason == "length")
                outcome = NO_ANSWER
            if outcome.error_code == "context_length_exceeded" and shrink < MOST_SHRINKS:
                shrink += 1
                continue
            failures += 1
            message = outcome.error or "The run was cancelled."
            if failures >= MOST_TRIES or outcome.error_code in _FINAL_CODES:
                raise StepFailed(outcome.error_code or "cancelled", message)
            writing.break_off()
            log.info("a step of research %s goes on: %s", self._claim.uid, message)

    def _run_of_turn(
        self, question: Question, turn: int, shrink: int, text: str
    ) -> tuple[StepRun, bool]:
        """The step's run of this turn, and whether it has only just been asked."""
        step = question.step
        if turn < len(step.runs):
            return step.runs[turn], False
        ask = question.make(shrink)
        run = self._submit(question, ask_to_continue(ask, text) if text else ask)
        step.runs.append(run)
        return run, True

    def cancel_all(self, steps: list[Step]) -> None:
        """End the runs that are still under way."""
        for run in [run for step in steps for run in step.runs]:
            self._cancel(run)

    def _cancel(self, run: StepRun) -> None:
        state, ended = self._context.ledger.do(
            lambda session: runs.request_cancel(session, run.run_id, now=utc_now())
        )
        if ended is not None:
            end_unwritten(self._context.store, run.uid, ended.as_event())
        elif state is RunState.RUNNING:
            send_control(self._context.store, {"type": "cancel", "run_id": run.uid})

    # ---- One run ---------------------------------------------------------------

    def _submit(self, question: Question, ask: Ask) -> StepRun:
        """A run for the step; waits a while for a node when none is there. Raises StepFailed."""
        deadline = time.monotonic() + NO_NODE_SECONDS
        model = self._claim.model_name
        if question.needs_eyes and self._claim.vision_model_name:
            model = self._claim.vision_model_name
        while True:
            try:
                return self._submit_to(question.step, ask, model)
            except (NoCapacity, ModelNotFound) as error:
                if time.monotonic() > deadline:
                    raise StepFailed(error.code, error.message) from error
                model = self._other_model(question) or model
                gevent.sleep(PAUSE_SECONDS)
            except DomainError as error:
                raise StepFailed(error.code, error.message) from error

    def _submit_to(self, step: Step, ask: Ask, model: str) -> StepRun:
        settings = self._context.settings
        request = RunRequest(
            model=model, messages=ask.messages,
            sampling=Sampling(max_tokens=ask.max_tokens, temperature=ask.temperature),
        )  # fmt: skip
        limits = RunLimits(
            settings.run_timeout_seconds, settings.queue_limit, settings.offline_after_seconds
        )
        return self.do(
            lambda session: research_work.submit_step_run(
                session, self._claim, step, request, limits=limits,
                availability=self._availability, reply_to=self._hub.channel, now=utc_now(),
            )
        )  # fmt: skip

    def _other_model(self, question: Question) -> str | None:
        """Another model that can do it, when the chosen one has left the network."""
        settings = self._context.settings
        wanted = ResearchModels(settings.research_model, settings.vision_models)
        with self._context.sessions() as session:
            try:
                chosen = research_models.choose_models(
                    session, self._claim.caller, wanted, has_image=question.needs_eyes,
                    now=utc_now(), offline_after_seconds=settings.offline_after_seconds,
                )  # fmt: skip
            except NoCapacity:
                return None
        return chosen.viewer if question.needs_eyes else chosen.writer

    def _ring(self, run: StepRun) -> None:
        timeout = int(self._context.settings.run_timeout_seconds) + 60
        try:
            self._context.queue.ring(str(run.run_id), timeout_seconds=timeout)
        except (redis.RedisError, OSError) as error:
            log.warning("run %s waits for Redis: %s", run.uid, error)  # it is rung later

    def _follow(self, run: StepRun, writing: _Writing, *, is_new: bool) -> RunOutcome:
        """Pass a run's text on, from its beginning; how it ended, or stands when it is circular."""
        with self._hub.subscribe(run.uid, replay=not is_new) as reader:
            if is_new:
                self._ring(run)
            return self._read(run, reader, writing)

    def _read(self, run: StepRun, reader: Subscription, writing: _Writing) -> RunOutcome:
        passed, is_lossy = 0, False
        while True:
            event = reader.get(LOOK_SECONDS)
            if event is None or event.is_end:
                outcome = self._look_at(run)
                if not RunState(outcome.state).is_final:
                    continue
                # Whatever the stream did not bring stands in the database.
                if len(outcome.answer_text) > passed:
                    writing.feed(outcome.answer_text[passed:])
                return outcome
            is_lossy = is_lossy or event.kind == LOST
            if event.kind == TEXT and not is_lossy:
                passed += len(event.value)
                writing.feed(event.value)
                if writing.is_circular:
                    self._cancel(run)
                    return self._look_at(run)

    def _look_at(self, run: StepRun) -> RunOutcome:
        with self._context.sessions() as session:
            return research_work.look_at_run(session, run.run_id)


class _Writing:
    """An answer as it grows, over as many runs as it takes."""

    def __init__(self, sink: Sink, source_count: int) -> None:
        self._sink = sink
        self._cleaner = Cleaner(source_count)

    @property
    def text(self) -> str:
        return self._cleaner.text

    @property
    def is_circular(self) -> bool:
        """Whether what comes is only what has been there."""
        return self._cleaner.is_circular

    def feed(self, piece: str) -> None:
        """The next piece of what a model writes."""
        if text := self._cleaner.feed(piece):
            self._sink(text)

    def finish(self) -> bool:
        """Nothing follows; whether there is an answer at all."""
        if text := self._cleaner.end():
            self._sink(text)
        return bool(self.text.strip())

    def break_off(self) -> None:
        """The run died. What readers have had stays; what nobody saw is forgotten."""
        self._cleaner.drop()
