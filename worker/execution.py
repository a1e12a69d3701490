"""Serving one run: claim it, ask an engine, pass the chunks on, write what came of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Any

import gevent
from gevent import Greenlet
from sqlalchemy.orm import Session

from app.core.clock import utc_now
from app.core.domain.errors import DomainError, EngineError, EngineOverloaded, InvalidInput
from app.core.domain.runs import Chunk, FinishReason, RunState, Usage
from app.core.engines.registry import engine_client
from app.core.services import claims, relay
from app.core.services.claims import Claim, Ended, NotClaimed, Result
from app.core.stream import REASONING, TEXT, TOOLS
from worker.context import WorkerContext

log = logging.getLogger(__name__)

MAX_ANSWER_CHARACTERS = 4_000_000


class Interrupted(gevent.GreenletExit):  # type: ignore[misc]
    """Somebody ended this attempt from outside. `why`: cancelled, lost, node_gone, deadline."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(slots=True)
class Progress:
    """What one attempt has answered so far."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)
    characters: int = 0
    first_chunk_at: Any = None
    finish_reason: FinishReason | None = None
    usage: Usage = field(default_factory=Usage)

    def extra(self) -> dict[str, Any] | None:
        """What an answer holds besides text."""
        found = {"reasoning": "".join(self.reasoning), "tool_calls": self.tools}
        return {name: value for name, value in found.items() if value} or None


class Attempt:
    """One claim being served in a greenlet of its own, which may be ended at any moment."""

    def __init__(self, context: WorkerContext, claim: Claim) -> None:
        self.claim = claim
        self.progress = Progress()
        self._context = context
        self._greenlet: Greenlet[..., None] | None = None
        self._why: str | None = None

    @property
    def has_begun(self) -> bool:
        """Whether the reader has been given anything."""
        return self.progress.first_chunk_at is not None

    def run(self) -> Exception | str | None:
        """Serve until the end: None when it succeeded, the error, or why it was interrupted."""
        left = (self.claim.deadline_at - utc_now()).total_seconds()
        self._greenlet = gevent.spawn(self._stream)
        self._greenlet.join(timeout=max(0.1, left))
        if not self._greenlet.dead:
            self.interrupt("deadline")
            self._greenlet.join()
        if self._why is not None and self.progress.finish_reason is None:
            return self._why
        error = self._greenlet.exception
        return error if isinstance(error, Exception) else None

    def interrupt(self, why: str) -> None:
        """End this attempt: the engine's connection is closed, which frees its place."""
        if self._why is None and self._greenlet is not None and not self._greenlet.dead:
            self._why = why
            self._greenlet.kill(Interrupted(why), block=False)

    def _stream(self) -> None:
        claim, progress = self.claim, self.progress
        client = engine_client(claim.candidate.engine, self._context.policy)
        chunks = client.generate(self._context.target(claim.candidate), claim.request)
        try:
            for chunk in chunks:
                self._take(chunk)
                if chunk.finish_reason is not None:
                    progress.finish_reason = chunk.finish_reason
                    progress.usage = chunk.usage or progress.usage
        finally:
            chunks.close()
        if progress.finish_reason is None:
            raise EngineError("The engine ended its answer without saying so.")

    def _take(self, chunk: Chunk) -> None:
        progress, write = self.progress, self._context.writer.write
        uid, reply_to = self.claim.uid, self.claim.reply_to
        if progress.first_chunk_at is None and (
            chunk.text or chunk.reasoning or chunk.tool_calls
        ):
            progress.first_chunk_at = utc_now()
        if chunk.text:
            progress.text.append(chunk.text)
            progress.characters += len(chunk.text)
            write(uid, TEXT, chunk.text, reply_to=reply_to)
        if chunk.reasoning:
            progress.reasoning.append(chunk.reasoning)
            progress.characters += len(chunk.reasoning)
            write(uid, REASONING, chunk.reasoning, reply_to=reply_to)
        if chunk.tool_calls:
            progress.tools.extend(chunk.tool_calls)
            write(uid, TOOLS, list(chunk.tool_calls), reply_to=reply_to)
        if progress.characters > MAX_ANSWER_CHARACTERS:
            raise EngineError("The engine's answer does not end.", retryable=False)


class Executor:
    """One per worker process: the attempts under way, by run."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._active: dict[str, Attempt] = {}
        self.has_waiting = gevent.event.Event()

    def execute(self, run_id: int) -> None:
        """Serve a run to its end, on as many nodes as it takes. Safe to call twice."""
        claim = self._context.ledger.claim(run_id)
        outcome: Exception | str | None = None
        while isinstance(claim, Claim):
            attempt = Attempt(self._context, claim)
            self._active[claim.uid] = attempt
            try:
                outcome = attempt.run()
            except BaseException:
                # The job was stopped from outside: let go of the run, somebody else takes it.
                attempt.interrupt("lost")
                self._context.writer.discard(claim.uid)
                raise
            finally:
                self._active.pop(claim.uid, None)
            if not self._may_retry(attempt, outcome):
                self._finish(attempt, outcome)
                return
            claim = self._hand_on(attempt, outcome)
        self._not_claimed(claim, outcome)

    def cancel(self, uid: str, why: str = "cancelled") -> None:
        """Interrupt a run if it is served here."""
        attempt = self._active.get(uid)
        if attempt is not None:
            attempt.interrupt(why)

    def reader_gone(self, uid: str) -> None:
        """The web process that waited for a run is dead: end it if it lives for its reader."""
        attempt = self._active.get(uid)
        if attempt is not None and attempt.claim.is_attached:
            attempt.interrupt("cancelled")

    def node_gone(self, node_id: int, *, began_too: bool) -> None:
        """Move the runs of a node that left and have no chunk yet; `began_too`: end the rest."""
        for attempt in list(self._active.values()):
            if attempt.claim.candidate.node_id == node_id and (
                began_too or not attempt.has_begun
            ):
                attempt.interrupt("node_gone")

    def keep(self, held: list[tuple[int, bool]]) -> None:
        """After a renewal of leases: stop what was cancelled, or is not ours any more."""
        wanted = dict(held)
        for uid, attempt in list(self._active.items()):
            run_id = attempt.claim.run_id
            if wanted.get(run_id):
                self.cancel(uid)
            elif run_id not in wanted and attempt.claim.started_at < utc_now():
                attempt.interrupt("lost")

    def _may_retry(self, attempt: Attempt, outcome: Exception | str | None) -> bool:
        if attempt.has_begun or attempt.claim.attempt >= self._context.settings.max_attempts:
            return False
        if isinstance(outcome, EngineError):
            return outcome.retryable
        return outcome == "node_gone"

    def _hand_on(self, attempt: Attempt, outcome: Exception | str | None) -> Claim | NotClaimed:
        claim, now = attempt.claim, utc_now()
        message = str(outcome) if isinstance(outcome, Exception) else "The node went away."
        code = outcome.code if isinstance(outcome, EngineError) else None
        log.info("run %s leaves node %s: %s", claim.uid, claim.candidate.node_id, message)
        candidate = claim.candidate
        asked_at = candidate.relay if candidate.endpoint_url is None else None

        def write(session: Session) -> bool:
            # Candidates are remembered for a second, in which a node may come back elsewhere.
            was_asked = not relay.has_moved(session, candidate.node_id, asked_at)
            if was_asked:
                claims.note_failure(session, candidate.replica_id, now=now)
            return claims.hand_on(
                session, claim, error=message, error_code=code, now=now, was_asked=was_asked
            )

        is_queued = self._context.ledger.do(write)
        self._context.ledger.forget_candidates()
        if not is_queued:
            return NotClaimed(claim.run_id, "gone")
        return self._context.ledger.claim(claim.run_id)

    def _finish(self, attempt: Attempt, outcome: Exception | str | None) -> None:
        if outcome == "lost":
            self._context.writer.discard(attempt.claim.uid)
            return
        claim, result = attempt.claim, _result(attempt.progress, outcome)
        replica_id, now = claim.candidate.replica_id, utc_now()
        is_fault = isinstance(outcome, EngineError) and outcome.reason != "engine_rejected"
        if is_fault:
            self._context.ledger.do(lambda s: claims.note_failure(s, replica_id, now=now))
        elif outcome is None and claim.candidate.failures:
            self._context.ledger.do(lambda s: claims.note_success(s, replica_id))
        ended = self._context.ledger.finish(claim, result)
        if ended is None:
            self._context.writer.discard(claim.uid)
            return
        self._tell(ended, outcome)
        if is_fault:
            self._context.ledger.forget_candidates()

    def _not_claimed(self, left: NotClaimed, outcome: Exception | str | None) -> None:
        if left.reason in {"full", "unserved"}:
            self.has_waiting.set()
        if left.ended is not None:
            self._tell(left.ended, outcome)

    def _tell(self, ended: Ended, outcome: Exception | str | None) -> None:
        """Write a run's end for its readers, with what its last engine said of coming again."""
        if isinstance(outcome, EngineOverloaded):
            ended = replace(ended, retry_after_seconds=outcome.retry_after_seconds)
        self._context.writer.end(ended.uid, ended.as_event(), reply_to=ended.reply_to)


def _result(progress: Progress, outcome: Exception | str | None) -> Result:
    """What an attempt came to, for the database."""
    state, finish, code, message = RunState.SUCCEEDED, progress.finish_reason, None, None
    if isinstance(outcome, str):
        state, finish, code, message = _interruption(outcome)
    elif outcome is not None:
        state, finish = RunState.FAILED, FinishReason.ERROR
        code, message = _failure(outcome)
    return Result(
        state=state,
        finish_reason=finish.value if finish else None,
        text="".join(progress.text),
        extra=progress.extra(),
        error_code=code,
        error=message,
        usage=progress.usage,
        first_chunk_at=progress.first_chunk_at,
    )


def _interruption(why: str) -> tuple[RunState, FinishReason, str | None, str | None]:
    if why == "cancelled":
        return RunState.CANCELLED, FinishReason.CANCELLED, None, None
    if why == "deadline":
        message = "The run did not end before its deadline."
        return RunState.FAILED, FinishReason.ERROR, "deadline_exceeded", message
    return RunState.FAILED, FinishReason.ERROR, "engine_error", "The node went away."


def _failure(error: Exception) -> tuple[str, str]:
    """Code and sentence of a failure; of our own bugs, callers hear only that there is one."""
    if isinstance(error, InvalidInput | EngineError):
        is_final = isinstance(error, InvalidInput) and error.code == "invalid"
        return ("engine_rejected" if is_final else error.code), error.message
    if isinstance(error, DomainError):
        return error.code, error.message
    log.error("a run failed on a bug", exc_info=error)
    return "engine_error", "Internal error."
