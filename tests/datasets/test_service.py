"""Datasets as their owners see them, and what is left when they go."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.domain.datasets import DatasetKind, Inspected
from app.core.domain.errors import Conflict, InvalidInput, NotFound
from app.core.models import Account, Dataset, UnwantedFile
from app.core.services import datasets, profiles
from app.core.services.datasets import NewDataset
from app.core.storage import StoredFile, new_name
from tests.fixtures.accounts import Person

NOW = utc_now()
CSV = Inspected("csv", DatasetKind.TABLE, ("a", "b"), (("1", "2"),), 1)
TEXT = Inspected("txt", DatasetKind.DOCUMENT)


def add(
    session: Session, owner: Person, name: str, *, told: Inspected = CSV, size: int = 10,
    description: str = "", suffix: bool = False, seconds: float = 0,
) -> Dataset:  # fmt: skip
    stored = StoredFile(new_name("datasets"), size, "ab" * 32)
    new = NewDataset(name, description, name, stored, told, suffix)
    return datasets.add(session, owner.id, new, now=NOW + timedelta(seconds=seconds))


def test_what_a_file_said_is_kept(session: Session, owner: Person) -> None:
    made = add(session, owner, "  sales.csv ", description=" North ")
    session.expire_all()

    found = datasets.find(session, owner.id, made.uid)
    assert (found.name, found.description, found.status) == ("sales.csv", "North", "processing")
    assert (found.headers, found.preview_rows) == (["a", "b"], [["1", "2"]])
    assert (found.row_count, found.column_count, found.used_in_research) == (1, 2, True)


def test_a_name_is_an_accounts_own_once(session: Session, owner: Person, other: Person) -> None:
    add(session, owner, "sales.csv")

    with pytest.raises(Conflict) as taken:
        add(session, owner, "sales.csv")
    assert taken.value.field == "name"
    assert add(session, owner, "sales.csv", suffix=True).name == "sales (2).csv"
    assert add(session, owner, "sales.csv", suffix=True).name == "sales (3).csv"
    assert add(session, other, "sales.csv", suffix=True).name == "sales.csv"


def test_a_suffix_fits_into_the_longest_name(session: Session, owner: Person) -> None:
    longest = "x" * 251 + ".csv"
    add(session, owner, longest)

    second = add(session, owner, longest, suffix=True).name

    assert len(second) == datasets.MAX_NAME
    assert second.endswith("x (2).csv")
    for name in ("dots..", ".hidden", "no ending", "v1.2 final"):
        add(session, owner, name)
        assert add(session, owner, name, suffix=True).name.startswith(name[:2])


@pytest.mark.parametrize("name", ["", " \n", "x" * 256])
def test_a_name_that_says_nothing_or_too_much_is_refused(
    session: Session, owner: Person, name: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        add(session, owner, name)
    assert refused.value.field == "name"


def test_a_list_is_filtered_ordered_and_counted(
    session: Session, owner: Person, other: Person
) -> None:
    add(session, owner, "b_sales.csv", size=5)
    add(session, owner, "A letter", told=TEXT, size=9, description="about Sales", seconds=1)
    add(session, owner, "c%.txt", told=TEXT, size=1, seconds=2)
    add(session, other, "theirs")

    def names(**wanted: object) -> tuple[list[str], int]:
        rows, total = datasets.page(session, owner.id, limit=2, offset=0, **wanted)  # type: ignore[arg-type]
        return [row.name for row in rows], total

    assert names() == (["c%.txt", "A letter"], 3)
    assert names(order="oldest") == (["b_sales.csv", "A letter"], 3)
    assert names(order="name") == (["A letter", "b_sales.csv"], 3)
    assert names(order="largest") == (["A letter", "b_sales.csv"], 3)
    assert names(keyword="SALES") == (["A letter", "b_sales.csv"], 2)
    assert names(keyword="%") == (["c%.txt"], 1)
    assert names(keyword="_") == (["b_sales.csv"], 1)
    assert names(kind="table") == (["b_sales.csv"], 1)
    assert names(format="txt", status="processing")[1] == 2
    assert names(status="ready") == ([], 0)
    assert datasets.page(session, owner.id, limit=2, offset=2)[0][0].name == "b_sales.csv"
    assert datasets.storage_used(session, owner.id) == 15
    assert datasets.count(session, owner.id) == 3


def test_its_owner_changes_it_and_nobody_else(
    session: Session, owner: Person, outsider: Person
) -> None:
    one, two = add(session, owner, "one"), add(session, owner, "two")
    later = NOW + timedelta(seconds=9)

    datasets.change(session, owner.id, one.uid, name="uno", used_in_research=False, now=later)
    session.expire_all()

    found = datasets.find(session, owner.id, one.uid)
    assert (found.name, found.used_in_research, found.updated_at) == ("uno", False, later)
    datasets.change(session, owner.id, two.uid, name="two", description="same name", now=later)
    with pytest.raises(Conflict):
        datasets.change(session, owner.id, two.uid, name="uno", now=later)
    with pytest.raises(NotFound):
        datasets.change(session, outsider.id, two.uid, name="mine", now=later)
    with pytest.raises(NotFound):
        datasets.remove(session, outsider.id, two.uid, now=later)
    with pytest.raises(NotFound):
        datasets.find(session, outsider.id, two.uid)


def test_what_is_removed_leaves_the_names_of_its_files_to_delete(
    session: Session, owner: Person
) -> None:
    made = add(session, owner, "one")
    file_name, made.index_file = made.file_name, new_name("indexes", ".db")
    session.flush()

    files = datasets.remove(session, owner.id, made.uid, now=NOW)

    assert set(files) == {file_name, made.index_file}
    assert set(session.scalars(sa.select(UnwantedFile.name))) == set(files)
    with pytest.raises(NotFound):
        datasets.find(session, owner.id, made.uid)
    assert add(session, owner, "one").name == "one"


def test_a_closed_account_leaves_no_dataset_and_gets_none(
    sessions: sessionmaker[Session], owner: Person, other: Person
) -> None:
    with sessions.begin() as session:
        mine = [add(session, owner, name).file_name for name in ("one", "two")]
        add(session, other, "theirs")
    with sessions.begin() as session:
        account = session.get_one(Account, owner.id)
        files = profiles.remove_account(session, account, now=NOW)

    assert set(files) == set(mine)
    with sessions() as session:
        assert datasets.count(session, owner.id) == 0
        assert datasets.count(session, other.id) == 1
        with pytest.raises(NotFound):
            add(session, owner, "three")
