"""What may be enqueued. Ids in, nothing out; each is safe to run twice."""

from __future__ import annotations

from collections.abc import Callable

from app.core.clock import utc_now
from app.core.services import model_choice
from worker import mails
from worker.context import WorkerContext
from worker.execution import Executor
from worker.indexing import Indexer
from worker.research import Researcher

_state: dict[str, object] = {}


def install(context: WorkerContext, executor: Executor) -> None:
    """Give the tasks of this process what they work with."""
    _state.update(context=context, executor=executor, indexer=Indexer(context))


def hand_over_when(is_stopping: Callable[[], bool]) -> None:
    """Jobs that another worker can go on with are given away as soon as this says so."""
    _state["researcher"] = Researcher(context(), is_stopping)


def context() -> WorkerContext:
    """This process's context."""
    found = _state["context"]
    assert isinstance(found, WorkerContext)  # noqa: S101 - install() put it there
    return found


def execute_run(run_id: str) -> None:
    """Serve one run."""
    executor = _state["executor"]
    assert isinstance(executor, Executor)  # noqa: S101 - install() put it there
    executor.execute(int(run_id))


def mail_password_reset(email: str) -> None:
    """Mail a link to set a new password to whoever has this address."""
    mails.send_reset(context(), email)


def mail_invitation(account_id: str) -> None:
    """Mail a fresh account the link to choose its first password."""
    mails.send_invitation(context(), int(account_id))


def mail_link_notice(account_id: str) -> None:
    """Tell an account by mail that a Google account was linked to it."""
    mails.send_link_notice(context(), int(account_id))


def research(job_id: str) -> None:
    """Drive one research job."""
    _researcher().execute(int(job_id))


def reap_research() -> None:
    """Ring for research jobs whose worker died."""
    _researcher().reap()


def index_dataset(dataset_id: str) -> None:
    """Make the search index of one dataset."""
    _indexer().execute(int(dataset_id))


def reap_datasets() -> None:
    """Ring for datasets that nobody indexes."""
    _indexer().reap()


def sweep_files() -> None:
    """Delete files that no row names any more."""
    _indexer().sweep()


def choose_models() -> None:
    """Give idle nodes a model of the catalogue, where that is turned on."""
    ours = context()
    if ours.settings.auto_models:
        ours.ledger.do(
            lambda session: model_choice.choose_models(
                session, now=utc_now(),
                offline_after_seconds=ours.settings.offline_after_seconds,
            )
        )  # fmt: skip


def _indexer() -> Indexer:
    found = _state["indexer"]
    assert isinstance(found, Indexer)  # noqa: S101 - install() put it there
    return found


def _researcher() -> Researcher:
    found = _state["researcher"]
    assert isinstance(found, Researcher)  # noqa: S101 - hand_over_when() put it there
    return found


def ping() -> str:
    """Prove that a worker takes jobs."""
    return "pong"
