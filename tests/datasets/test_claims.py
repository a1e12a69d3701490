"""Claims on datasets: one worker makes an index, and who lost it writes nothing more."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from app.core.datasets.building import Built
from app.core.models import Dataset, UnwantedFile
from app.core.services import dataset_work, datasets
from app.core.services.dataset_work import MOST_ATTEMPTS, IndexClaim
from tests.datasets.test_service import NOW, TEXT, add
from tests.fixtures.accounts import Person

LEASE = 10.0
FOUND = Built(
    headers=["a"], preview_rows=[["1"]], row_count=7, kind="table", passages=3, note="Cut."
)


@pytest.fixture
def dataset(sessions: sessionmaker[Session], owner: Person) -> Dataset:
    """A dataset that waits for its index."""
    with sessions.begin() as session:
        return add(session, owner, "one")


def claim(
    session: Session, dataset: Dataset, worker: str = "one", seconds: float = 0
) -> IndexClaim | None:
    now = NOW + timedelta(seconds=seconds)
    return dataset_work.claim(session, dataset.id, worker=worker, lease_seconds=LEASE, now=now)


def unwanted(session: Session) -> set[str]:
    return set(session.scalars(sa.select(UnwantedFile.name)))


def state(session: Session, dataset: Dataset) -> tuple[str, str | None, str | None]:
    row = session.get_one(Dataset, dataset.id, populate_existing=True)
    return row.status, row.index_file, row.status_message


def test_one_worker_has_a_dataset_and_ends_it(session: Session, dataset: Dataset) -> None:
    mine = claim(session, dataset)

    assert mine is not None
    assert claim(session, dataset, "two") is None
    assert dataset_work.hold(session, mine, lease_seconds=LEASE, now=NOW)
    assert dataset_work.finish(session, mine, FOUND, now=NOW)
    assert state(session, dataset) == ("ready", mine.index_file, "Cut.")
    row = session.get_one(Dataset, dataset.id, populate_existing=True)
    assert (row.headers, row.row_count, row.column_count, row.passage_count) == (["a"], 7, 1, 3)
    assert claim(session, dataset, "two", seconds=99) is None


def test_a_dataset_is_taken_from_a_silent_worker_which_then_writes_nothing(
    session: Session, dataset: Dataset
) -> None:
    lost = claim(session, dataset)
    taken = claim(session, dataset, "two", seconds=LEASE + 1)

    assert lost is not None
    assert taken is not None
    assert taken.index_file != lost.index_file
    assert unwanted(session) == {lost.index_file}
    assert not dataset_work.hold(session, lost, lease_seconds=LEASE, now=NOW)
    assert not dataset_work.finish(session, lost, FOUND, now=NOW)
    assert dataset_work.finish(session, taken, FOUND, now=NOW)


def test_what_has_no_text_is_ready_without_an_index(session: Session, dataset: Dataset) -> None:
    mine = claim(session, dataset)
    assert mine is not None

    dataset_work.finish(session, mine, Built(note="Nothing to search."), now=NOW)

    assert state(session, dataset) == ("ready", None, "Nothing to search.")
    assert dataset_work.list_searchable(session, dataset.account_id) == []


def test_what_cannot_be_read_failed_and_says_why(session: Session, dataset: Dataset) -> None:
    mine = claim(session, dataset)
    assert mine is not None

    dataset_work.finish(session, mine, Built(error="It is broken."), now=NOW)

    assert state(session, dataset) == ("failed", None, "It is broken.")


def test_a_file_that_kills_its_workers_is_given_up(session: Session, dataset: Dataset) -> None:
    late = 0.0
    for _ in range(MOST_ATTEMPTS):
        assert claim(session, dataset, seconds=late) is not None
        late += LEASE + 1

    assert claim(session, dataset, seconds=late) is None

    assert state(session, dataset)[0] == "failed"
    assert len(unwanted(session)) == MOST_ATTEMPTS


def test_a_worker_that_stops_gives_its_dataset_back_and_it_costs_no_attempt(
    session: Session, dataset: Dataset
) -> None:
    for _ in range(MOST_ATTEMPTS + 1):
        mine = claim(session, dataset)
        assert mine is not None
        dataset_work.release(session, mine, now=NOW)
        assert dataset_work.find_unheld(session, now=NOW) == [dataset.id]


def test_a_dataset_is_rung_for_again_when_its_bell_or_its_worker_was_lost(
    session: Session, dataset: Dataset
) -> None:
    def unheld(seconds: float) -> list[int]:
        return dataset_work.find_unheld(session, now=NOW + timedelta(seconds=seconds))

    assert unheld(30) == []
    assert unheld(61) == [dataset.id]
    assert unheld(62) == []
    assert claim(session, dataset, seconds=62) is not None
    assert unheld(62 + LEASE - 1) == []
    assert unheld(62 + LEASE + 1) == [dataset.id]


def test_a_removed_dataset_can_be_neither_kept_nor_ended(
    session: Session, dataset: Dataset
) -> None:
    mine = claim(session, dataset)
    assert mine is not None

    files = datasets.remove(session, dataset.account_id, dataset.uid, now=NOW)

    assert mine.index_file in files
    assert not dataset_work.hold(session, mine, lease_seconds=LEASE, now=NOW)
    assert not dataset_work.finish(session, mine, FOUND, now=NOW)


def test_unwanted_files_are_listed_when_nobody_can_write_them_any_more(
    session: Session, dataset: Dataset
) -> None:
    files = datasets.remove(session, dataset.account_id, dataset.uid, now=NOW)
    later = NOW + timedelta(seconds=dataset_work.UNWANTED_SECONDS + 1)

    assert dataset_work.list_unwanted(session, now=NOW + timedelta(seconds=60)) == []
    listed = dataset_work.list_unwanted(session, now=later)
    assert [name for _, name in listed] == files
    dataset_work.forget_unwanted(session, [id_ for id_, _ in listed])
    assert dataset_work.list_unwanted(session, now=later) == []


def test_research_sees_what_its_account_lets_it_see(
    session: Session, owner: Person, other: Person
) -> None:
    def ready(person: Person, name: str, seconds: float) -> Dataset:
        made = add(session, person, name, told=TEXT, seconds=seconds)
        mine = claim(session, made)
        assert mine is not None
        dataset_work.finish(session, mine, Built(passages=1), now=NOW)
        return made

    first, second = ready(owner, "first", 0), ready(owner, "second", 1)
    ready(other, "theirs", 2)
    hidden = ready(owner, "hidden", 3)
    datasets.change(session, owner.id, hidden.uid, used_in_research=False, now=NOW)
    add(session, owner, "waiting")

    seen = dataset_work.list_searchable(session, owner.id)

    assert [one.uid for one in seen] == [second.uid, first.uid]
