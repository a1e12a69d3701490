"""The caller's own data as a source: which datasets speak of a question, and what they say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.datasets.index_file import IndexWriter
from app.core.datasets.index_shelf import IndexShelf
from app.core.datasets.words import asked_words, index_words
from app.core.domain.errors import NotFound
from app.core.research import own_data
from app.core.research.own_data import NOT_ALL, NOTHING_FOUND, OwnData
from app.core.research.sources import MOST_SOURCES, Finding, Found, Wanted, gather, share_places
from app.core.services.dataset_work import Searchable
from app.core.storage import Storage

WANTED = Wanted(
    7, "Tell me about the tower.", ("How high is the tower?", "Who built the tower?")
)


class Shelf:
    """Indexes of one account's datasets, each of its own passages."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.datasets: list[Searchable] = []
        self.asked: list[int] = []

    def add(self, name: str, *passages: str, description: str = "", summary: str = "") -> None:
        uid = f"{len(self.datasets):024x}"
        index = IndexWriter(self._folder / uid, most_passages=1000)
        for number, text in enumerate(passages, 1):
            index.add(f"page {number}", text)
        if summary:
            index.add_summary(summary)
        index.close()
        self.datasets.append(Searchable(uid, name, description, uid))

    def find(self, wanted: Wanted = WANTED) -> Found:
        return OwnData(
            self._list, lambda name: self._folder / name, site_url="https://hub"
        ).find(wanted)

    def titles(self, wanted: Wanted = WANTED) -> list[str]:
        return [finding.title for finding in self.find(wanted).findings]

    def _list(self, account_id: int) -> list[Searchable]:
        self.asked.append(account_id)
        return self.datasets


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_a_document_gives_its_best_passages_in_its_own_order(shelf: Shelf) -> None:
    filler = [f"Pears and plums, number {number}." for number in range(50)]
    shelf.add("notes.txt", "The builder of towers.", *filler, "The tower is 330 metres high.")

    found = shelf.find()

    assert shelf.asked == [WANTED.account_id]
    assert found.note == ""
    (finding,) = found.findings
    assert finding.title == "notes.txt"
    assert finding.url == f"https://hub/data/{0:024x}"
    assert finding.text == (
        "Page 1: The builder of towers.\nPage 52: The tower is 330 metres high."
    )


def test_a_table_begins_with_its_summary(shelf: Shelf) -> None:
    shelf.add("heights.csv", "tower: Eiffel; height: 330.", summary="The table has 9 rows.")

    assert shelf.find().findings[0].text == (
        "Summary: The table has 9 rows.\nPage 1: tower: Eiffel; height: 330."
    )


def test_what_says_nothing_of_the_question_is_left_out(shelf: Shelf) -> None:
    assert shelf.find() == Found()
    shelf.add("pears.csv", "Pears are ripe in September.", "About this and that, tell me.")

    assert shelf.find() == Found(note=NOTHING_FOUND)


def test_one_word_of_many_is_not_enough_and_names_count_for_all_passages(
    shelf: Shelf,
) -> None:
    wanted = Wanted(7, "Which region sold most bicycles in autumn 2023?", ())
    shelf.add("poems.txt", "Autumn leaves.")
    shelf.add("bicycles.csv", "region: north; sold: 12.")
    shelf.add("x.csv", "region: south; sold: 9.", description="Bicycle sales of 2023")

    assert sorted(shelf.titles(wanted)) == ["bicycles.csv", "x.csv"]


def test_a_dataset_that_only_its_name_speaks_for_shows_how_it_begins(shelf: Shelf) -> None:
    shelf.add("tower heights.csv", "name: Eiffel; m: 330.", "name: Tokyo; m: 333.", "name: C.")

    assert shelf.find().findings[0].text == (
        "Page 1: name: Eiffel; m: 330.\nPage 2: name: Tokyo; m: 333."
    )


def test_the_best_come_first_and_no_more_than_a_report_has_places_for(shelf: Shelf) -> None:
    for number in range(MOST_SOURCES + 3):
        shelf.add(f"{number}.txt", "A tower.")
    shelf.add("best.txt", "How high the tower is, and who built it.")

    titles = shelf.titles()

    assert titles[0] == "best.txt"
    assert len(titles) == MOST_SOURCES


def test_one_dataset_gives_no_more_than_its_share_of_text(shelf: Shelf) -> None:
    shelf.add("long.txt", *(f"Tower {number}. " + "high " * 130 for number in range(40)))

    text = (
        shelf.find(Wanted(7, "tower?", tuple(f"tower {n}?" for n in range(40))))
        .findings[0]
        .text
    )

    assert 4_000 < len(text) <= own_data.MOST_CHARACTERS


def test_a_broken_or_missing_index_hides_no_other(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("broken", "gone", "fine"):
        shelf.add(name, "The tower is high.")
    (tmp_path / shelf.datasets[0].index_file).write_bytes(b"SQLite format 3\0" + b"\xff" * 9000)
    (tmp_path / shelf.datasets[1].index_file).unlink()

    assert shelf.titles() == ["fine"]
    monkeypatch.setattr(own_data, "TOGETHER_SECONDS", -1.0)
    assert shelf.find() == Found(note=NOT_ALL)


@pytest.mark.parametrize(
    "question",
    ['" OR tower', "tower* NEAR(high)", "search:tower", "'; DROP TABLE search", "-^()"],
)
def test_a_question_is_never_a_query_language(shelf: Shelf, question: str) -> None:
    shelf.add("notes.txt", "The tower is high. Drop the table near the search.")

    found = shelf.find(Wanted(7, question, ()))

    assert [one.title for one in found.findings] == (
        [] if question == "-^()" else ["notes.txt"]
    )


def test_words_lose_their_endings_accents_and_the_words_around_them() -> None:
    assert asked_words("What are the opening hours of the Cafés?") == index_words(
        "open hour cafe"
    )
    for one, other in (
        ("prices", "price"), ("priced", "price"), ("studies", "study"), ("stopped", "stopping"),
        ("classes", "class"), ("boxes", "box"), ("Zürich", "zurich"), ("running", "runs"),
    ):  # fmt: skip
        assert index_words(one) == index_words(other), (one, other)
    assert index_words("height_m 3.5") == ["height", "m", "3", "5"]
    assert asked_words("北京大学在哪里?")[:3] == ["北京", "京大", "大学"]
    assert set(index_words("参观北京大学")) >= {"北京", "京大", "大学"}


class Fixed:
    """A finder that brings so many things."""

    def __init__(self, name: str, count: int, note: str = "") -> None:
        self.found = Found(
            tuple(Finding(f"{name}{n}", f"https://{name}/{n}", "text") for n in range(count)),
            note,
        )

    def find(self, wanted: Wanted) -> Found:
        return self.found


@pytest.mark.parametrize(
    ("own", "web", "shares"),
    [(0, 0, (0, 0)), (2, 8, (2, 8)), (12, 0, (12, 0)), (12, 8, (6, 6)), (5, 8, (5, 7)), (9, 2, (9, 2))],
)  # fmt: skip
def test_finders_share_the_places_and_none_is_crowded_out(
    own: int, web: int, shares: tuple[int, int]
) -> None:
    found = gather([Fixed("own", own, "One."), Fixed("web", web, "Two.")], WANTED)

    titles = [source.title for source in found.sources]
    assert titles == [
        *(f"own{n}" for n in range(shares[0])),
        *(f"web{n}" for n in range(shares[1])),
    ]
    assert [source.number for source in found.sources] == list(range(1, sum(shares) + 1))
    assert found.notes == ("One.", "Two.")


def test_places_are_never_more_than_there_are() -> None:
    assert share_places([5, 1, 9], 7) == [3, 1, 3]
    assert share_places([1, 1], 12) == [1, 1]


def test_an_index_that_is_stored_elsewhere_is_fetched_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Storage("", tmp_path)
    stored = files.put_bytes("indexes", b"an index", suffix=".db")
    reads: list[str] = []
    real: Callable[[str], object] = files.blocks
    monkeypatch.setattr(files, "local_path", lambda name: None)
    monkeypatch.setattr(files, "blocks", lambda name: reads.append(name) or real(name))
    shelf = IndexShelf(files, tmp_path)

    first, second = shelf.path(stored.name), shelf.path(stored.name)

    assert first == second
    assert first.read_bytes() == b"an index"
    assert reads == [stored.name]
    with pytest.raises(NotFound):
        shelf.path("indexes/" + "0" * 32 + ".db")
    assert list(first.parent.iterdir()) == [first]
