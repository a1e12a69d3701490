"""Runs as their callers see them: submit, look at, cancel."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.database import AnySession
from app.core.domain.accounts import Identity
from app.core.domain.errors import Forbidden, ModelNotFound, NoCapacity, NotFound
from app.core.domain.runs import RunRequest, RunState, Usage, request_to_json
from app.core.ids import new_uid
from app.core.models import IS_QUEUED, IS_RUNNING, Run
from app.core.services import placement, usage
from app.core.services.claims import Ended

SNAPSHOT_SECONDS = 0.5
# A snapshot that shows room to spare holds for longer: a run more does no harm then.
ROOMY_SNAPSHOT_SECONDS = 1.5
_RETRY_AFTER_SECONDS = 15


@dataclass(frozen=True, slots=True)
class RunLimits:
    """How long a run may take and how many may wait for one model."""

    timeout_seconds: float
    queue_limit: int
    offline_after_seconds: float


@dataclass(frozen=True, slots=True)
class Submitted:
    """A run that is in the database and wants its bell rung."""

    run_id: int
    uid: str
    created_at: datetime


class Availability:
    """Which models can be asked for now, looked up now and then in each process."""

    def __init__(self) -> None:
        self._seen_at = float("-inf")
        self._serving: frozenset[str] = frozenset()
        self._queued: dict[str, int] = {}

    def check(
        self, session: AnySession, model_name: str, limits: RunLimits, now: datetime
    ) -> None:
        """Raise ModelNotFound or NoCapacity when a run of this model could not be served."""
        if not self._is_fresh(model_name, limits):
            self._look(session, limits, now)
        if model_name not in self._serving:
            if not placement.is_known(session, model_name):
                raise ModelNotFound(f"The model `{model_name}` does not exist.", field="model")
            raise NoCapacity(
                f"No online node serves {model_name} now.",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        if self._queued.get(model_name, 0) >= limits.queue_limit:
            raise NoCapacity(
                f"Too many requests are waiting for {model_name}.",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )

    def _is_fresh(self, model_name: str, limits: RunLimits) -> bool:
        if model_name not in self._serving:
            return False
        is_roomy = self._queued.get(model_name, 0) < limits.queue_limit / 2
        kept = ROOMY_SNAPSHOT_SECONDS if is_roomy else SNAPSHOT_SECONDS
        return time.monotonic() <= self._seen_at + kept

    def _look(self, session: AnySession, limits: RunLimits, now: datetime) -> None:
        found = placement.list_candidates(
            session, now=now, offline_after_seconds=limits.offline_after_seconds
        )
        self._serving = frozenset(candidate.model_name for candidate in found)
        self._queued = count_queued(session)
        self._seen_at = time.monotonic()


def count_queued(session: AnySession) -> dict[str, int]:
    """Waiting runs by model."""
    return {row[0]: row[1] for row in session.execute(_COUNT_QUEUED)}


# Built once: building a statement costs more than running it.
_COUNT_QUEUED = (
    sa.select(Run.model_name, sa.func.count()).where(IS_QUEUED).group_by(Run.model_name)
)
_runs: Any = Run.__table__
_INSERT_RUN = sa.insert(_runs).returning(_runs.c.id)
_INSERT_RUNS = sa.insert(_runs).returning(_runs.c.id, _runs.c.uid)


def submit_run(
    session: Session,
    caller: Identity,
    request: RunRequest,
    *,
    door: str,
    limits: RunLimits,
    availability: Availability,
    now: datetime,
    reply_to: str | None = None,
    is_attached: bool = False,
) -> Submitted:
    """Accept a run: a row in state queued. The caller commits, then rings the queue.

    `is_attached`: the run is cancelled when its reader leaves. Raises Forbidden for a key
    of another model, ModelNotFound, NoCapacity.
    """
    row = new_run(
        session, caller, request, door=door, limits=limits, availability=availability,
        now=now, reply_to=reply_to, is_attached=is_attached,
    )  # fmt: skip
    run_id = session.execute(_INSERT_RUN, row).scalar_one()
    return Submitted(run_id, row["uid"], now)


def new_run(
    session: AnySession,
    caller: Identity,
    request: RunRequest,
    *,
    door: str,
    limits: RunLimits,
    availability: Availability,
    now: datetime,
    reply_to: str | None = None,
    is_attached: bool = False,
) -> dict[str, Any]:
    """The row of an acceptable run, for `insert_runs`. Raises what `submit_run` raises."""
    if caller.model_name is not None and caller.model_name != request.model:
        raise Forbidden(f"This key opens the model {caller.model_name} alone.")
    availability.check(session, request.model, limits, now)
    return {
        "uid": new_uid(),
        "account_id": caller.account_id,
        "credential_id": caller.credential_id,
        "door": door,
        "kind": request.kind,
        "model_name": request.model,
        "request": request_to_json(request),
        "state": RunState.QUEUED,
        "reply_to": reply_to,
        "is_attached": is_attached,
        "attempt": 0,
        "tried_replicas": [],
        "created_at": now,
        "rung_at": now,
        "deadline_at": now + timedelta(seconds=limits.timeout_seconds),
    }


def insert_runs(connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> list[int]:
    """Write rows of `new_run`; gives their ids in the same order. The caller commits."""
    if len(rows) == 1:
        return [connection.execute(_INSERT_RUN, rows[0]).scalar_one()]
    found = connection.execute(_INSERT_RUNS, list(rows))
    ids = {uid: run_id for run_id, uid in found}
    return [ids[row["uid"]] for row in rows]


def get_run(session: Session, caller: Identity, uid: str) -> Run:
    """The caller's own run; an admin's any; for a key of one model, that model's.

    Raises NotFound.
    """
    run = session.scalar(sa.select(Run).where(Run.uid == uid))
    if run is None or not caller.may_act_for(run.account_id):
        raise NotFound("Run not found.")
    if caller.model_name is not None and caller.model_name != run.model_name:
        raise NotFound("Run not found.")
    return run


def get_run_by_id(session: Session, run_id: int) -> Run:
    """A run by its row id, fresh from the database. Raises NotFound."""
    run = session.get(Run, run_id, populate_existing=True)
    if run is None:
        raise NotFound("Run not found.")
    return run


def list_runs(
    session: Session,
    *,
    account_id: int | None = None,
    node_id: int | None = None,
    state: str | None = None,
    before_id: int | None = None,
    limit: int = 50,
) -> list[Run]:
    """The newest runs of an account or a node, `limit` at a time, older than `before_id`."""
    query = sa.select(Run).order_by(Run.id.desc()).limit(limit)
    if account_id is not None:
        query = query.where(Run.account_id == account_id)
    if node_id is not None:
        query = query.where(Run.node_id == node_id)
    if state:
        query = query.where(Run.state == state)
    if before_id is not None:
        query = query.where(Run.id < before_id)
    return list(session.scalars(query))


def count_live(session: Session, *, account_id: int | None = None) -> dict[str, int]:
    """Queued and running runs, of the network or of one account."""
    counts = {}
    for state, is_in_state in ((RunState.QUEUED, IS_QUEUED), (RunState.RUNNING, IS_RUNNING)):
        query = sa.select(sa.func.count()).select_from(Run).where(is_in_state)
        if account_id is not None:
            query = query.where(Run.account_id == account_id)
        counts[state.value] = session.scalar(query) or 0
    return counts


def request_cancel(
    session: Session, run_id: int, *, now: datetime
) -> tuple[RunState, Ended | None]:
    """Cancel a queued run at once; mark a running one, whose worker ends it.

    Returns the state after this, and the end of a run that this has ended. The caller commits,
    then publishes that end, or sends the worker word (`control`).
    """
    run = session.get(Run, run_id, populate_existing=True)
    if run is None:
        return RunState.CANCELLED, None
    cancelled = {
        "state": RunState.CANCELLED, "finish_reason": "cancelled",
        "cancel_requested_at": now, "finished_at": now,
    }  # fmt: skip
    if _move(session, run_id, RunState.QUEUED, cancelled):
        usage.record(session, run, state=RunState.CANCELLED, tokens=Usage(), now=now)
        ended = Ended(run.id, run.uid, run.reply_to, RunState.CANCELLED, "cancelled")
        return RunState.CANCELLED, ended
    marked = {"cancel_requested_at": sa.func.coalesce(Run.cancel_requested_at, now)}
    if _move(session, run_id, RunState.RUNNING, marked):
        return RunState.RUNNING, None
    found = session.scalar(sa.select(Run.state).where(Run.id == run_id))
    return RunState(found or RunState.CANCELLED), None


def _move(session: Session, run_id: int, state: RunState, values: dict[str, Any]) -> bool:
    """Change a run if it is in this state; whether it was."""
    moved = session.execute(
        sa.update(Run)
        .where(Run.id == run_id, Run.state == state)
        .values(values)
        .execution_options(synchronize_session=False)
    )
    return moved.rowcount == 1  # type: ignore[attr-defined,no-any-return]
