"""torbiz's questions: rows of their own, each with the run that answers it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.domain.accounts import Identity
from app.core.domain.errors import NotFound
from app.core.domain.runs import RunKind, RunRequest, Sampling
from app.core.models import Account, Inference, Run


@dataclass(frozen=True, slots=True)
class InferenceView:
    """A question as its owner sees it."""

    id: int
    account_id: int
    username: str
    question_text: str
    answer_text: str | None
    desired_model: str
    source: str
    created_at: datetime
    run_id: int | None


def _query() -> sa.Select[Inference, str, str | None]:
    return (
        sa.select(Inference, Account.username, Run.answer_text)
        .join(Account, Account.id == Inference.account_id)
        .outerjoin(Run, Run.id == Inference.run_id)
    )


def _view(row: sa.Row[Inference, str, str | None]) -> InferenceView:
    inference, username, answer = row
    is_imported = inference.imported_answer is not None
    return InferenceView(
        id=inference.id,
        account_id=inference.account_id,
        username=username,
        question_text=inference.question_text,
        answer_text=inference.imported_answer if is_imported else answer,
        desired_model=inference.desired_model,
        source="imported" if is_imported else "platform",
        created_at=inference.created_at,
        run_id=inference.run_id,
    )


def list_inferences(
    session: Session, caller: Identity, *, page: int, page_size: int
) -> tuple[list[InferenceView], int]:
    """The caller's questions, newest first, and how many there are; an admin gets everybody's."""
    mine = sa.true() if caller.is_admin else Inference.account_id == caller.account_id
    total = session.scalar(sa.select(sa.func.count()).select_from(Inference).where(mine)) or 0
    rows = session.execute(
        _query().where(mine).order_by(Inference.id.desc())
        .limit(page_size).offset((page - 1) * page_size)
    )  # fmt: skip
    return [_view(row) for row in rows], total


def get_inference(session: Session, caller: Identity, inference_id: int) -> InferenceView:
    """One question. Raises NotFound for somebody else's."""
    row = session.execute(_query().where(Inference.id == inference_id)).first()
    if row is None or not caller.may_act_for(row[0].account_id):
        raise NotFound("Not found.")
    return _view(row)


def import_inference(
    session: Session,
    caller: Identity,
    *,
    question_text: str,
    desired_model: str,
    answer_text: str,
    now: datetime,
) -> int:
    """Keep a question that was answered elsewhere; its id."""
    row = Inference(
        account_id=caller.account_id, question_text=question_text,
        desired_model=desired_model, imported_answer=answer_text, created_at=now,
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row.id


def as_request(question_text: str, desired_model: str, sampling: Sampling) -> RunRequest:
    """The run that answers a question."""
    return RunRequest(
        model=desired_model,
        kind=RunKind.CHAT,
        messages=({"role": "user", "content": question_text},),
        sampling=sampling,
    )


# Built once: building a statement costs more than running it.
_questions: Any = Inference.__table__
_INSERT = sa.insert(_questions).returning(_questions.c.id)
_ASK_ANEW = (
    sa.update(_questions)
    .where(_questions.c.id == sa.bindparam("b_id"))
    .values(
        run_id=sa.bindparam("run_id"), question_text=sa.bindparam("question_text"),
        desired_model=sa.bindparam("desired_model"), imported_answer=None,
    )
)  # fmt: skip


def keep_question(
    connection: sa.Connection,
    caller: Identity,
    run_id: int,
    *,
    question_text: str,
    desired_model: str,
    now: datetime,
    inference_id: int | None = None,
) -> int:
    """Write a question, or ask an earlier one anew, beside the run that answers it: its id."""
    row: dict[str, Any] = {
        "run_id": run_id, "question_text": question_text, "desired_model": desired_model,
    }  # fmt: skip
    if inference_id is not None:
        connection.execute(_ASK_ANEW, {**row, "b_id": inference_id})
        return inference_id
    row |= {"account_id": caller.account_id, "created_at": now}
    return int(connection.execute(_INSERT, row).scalar_one())


def store_answer(
    session: Session,
    inference_id: int,
    *,
    question_text: str,
    desired_model: str,
    answer_text: str,
) -> None:
    """Replace a question together with its answer: nobody is asked."""
    session.execute(
        sa.update(Inference)
        .where(Inference.id == inference_id)
        .values(
            question_text=question_text,
            desired_model=desired_model,
            imported_answer=answer_text,
        )
    )


def delete_inference(session: Session, inference_id: int) -> None:
    """Forget a question. What its run used stays counted."""
    session.execute(sa.delete(Inference).where(Inference.id == inference_id))
