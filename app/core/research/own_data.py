"""The caller's own datasets and documents as a source of research."""

from __future__ import annotations

import logging
import math
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from app.core.datasets.index_file import IndexedPassage, IndexReader
from app.core.datasets.words import asked_words, index_words
from app.core.domain.errors import DomainError
from app.core.offload import run_off_loop
from app.core.research.sources import MOST_SOURCES, Finding, Found, Wanted

MOST_CHARACTERS = 8_000  # of one dataset in one research
TOGETHER_SECONDS = 20.0
_PASSAGES_A_QUESTION = 8
_SUMMARIES = 3
_OPENING = 2  # passages that stand for a dataset of which only the name was asked
# So many words of a question, but no more than three, make a passage worth reading.
_SHARE, _ENOUGH = 0.4, 3

NOTHING_FOUND = "Nothing in your own data speaks of this."
NOT_ALL = "Not all of your own data could be searched in time."

log = logging.getLogger(__name__)


class OwnDataset(Protocol):
    """What is known of a dataset that may be searched."""

    @property
    def uid(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def index_file(self) -> str: ...


@dataclass(frozen=True, slots=True)
class _Hit:
    """A dataset that speaks of what is wanted; `score` says how well."""

    score: float
    finding: Finding


@dataclass(slots=True)
class _Looked:
    """What an index gave: a list of passages per question, and what stands for the whole."""

    found: list[list[IndexedPassage]] = field(default_factory=list)
    summary: list[IndexedPassage] = field(default_factory=list)
    opening: list[IndexedPassage] = field(default_factory=list)


class OwnData:
    """Looks into the datasets of the account that asks, and into nobody else's.

    `list_datasets` gives an account's datasets, newest first; `open_index` where an index lies.
    """

    def __init__(
        self,
        list_datasets: Callable[[int], Sequence[OwnDataset]],
        open_index: Callable[[str], Path],
        *,
        site_url: str,
    ) -> None:
        self._list_datasets = list_datasets
        self._open_index = open_index
        self._site_url = site_url

    def find(self, wanted: Wanted) -> Found:
        """The datasets that speak of the question, best first, each with its best passages."""
        datasets = self._list_datasets(wanted.account_id)
        asked = (asked_words(one) for one in (*wanted.sub_questions, wanted.question))
        questions = list(dict.fromkeys(tuple(words) for words in asked if words))
        if not datasets:
            return Found()
        hits: list[_Hit] = []
        note = ""
        until = time.monotonic() + TOGETHER_SECONDS
        for dataset in datasets:
            if time.monotonic() > until:
                note = NOT_ALL
                break
            hit = self._look(dataset, questions)
            if hit is not None:
                hits.append(hit)
        hits.sort(key=lambda hit: -hit.score)
        findings = tuple(hit.finding for hit in hits[:MOST_SOURCES])
        return Found(findings, note or ("" if findings else NOTHING_FOUND))

    def _look(self, dataset: OwnDataset, questions: Sequence[tuple[str, ...]]) -> _Hit | None:
        try:
            path = self._open_index(dataset.index_file)
            looked = run_off_loop(_search, path, questions)
        except (DomainError, OSError, sqlite3.Error) as error:
            log.warning("the index of dataset %s was not searched: %s", dataset.uid, error)
            return None
        title = frozenset(index_words(f"{dataset.name} {dataset.description}"))
        best: dict[int, tuple[int, IndexedPassage]] = {}
        score = 0.0
        for words, passages in zip(questions, looked.found, strict=True):
            counted = [(_count(words, title, one), one) for one in passages]
            enough = _enough(words)
            most = max([count for count, _ in counted], default=_count(words, title, None))
            if most < enough:
                continue
            score += most / len(words)
            for count, passage in counted:
                if count > best.get(passage.id, (0, passage))[0]:
                    best[passage.id] = (count, passage)
        if not score:
            return None
        chosen = [one for _, one in sorted(best.values(), key=lambda pair: -pair[0])]
        text = _text([*looked.summary, *(chosen or looked.opening)])
        url = f"{self._site_url}/data/{dataset.uid}"
        return _Hit(score, Finding(dataset.name, url, text)) if text else None


def _search(path: Path, questions: Sequence[tuple[str, ...]]) -> _Looked:
    reader = IndexReader(path)
    return _Looked(
        reader.search(questions, most=_PASSAGES_A_QUESTION),
        reader.summary(most=_SUMMARIES),
        reader.opening(most=_OPENING),
    )


def _enough(words: Sequence[str]) -> int:
    """How many of a question's words make a passage worth reading."""
    return max(1, min(_ENOUGH, math.ceil(_SHARE * len(words))))


def _count(words: Sequence[str], title: frozenset[str], passage: IndexedPassage | None) -> int:
    """How many of a question's words a passage has, with the name of what it stands in."""
    there = title | set(index_words(passage.text)) if passage else title
    return sum(word in there for word in words)


def _text(passages: Sequence[IndexedPassage]) -> str:
    """The first of these passages, as many as fit, as one text in the file's order."""
    chosen: dict[int, IndexedPassage] = {}
    left = MOST_CHARACTERS
    for passage in passages:
        left -= len(passage.text) + len(passage.place) + 3
        if left < 0:
            break
        chosen.setdefault(passage.id, passage)
    ordered = sorted(chosen.values(), key=lambda passage: passage.id)
    return "\n".join(_placed(passage) for passage in ordered)


def _placed(passage: IndexedPassage) -> str:
    place = passage.place
    return f"{place[:1].upper()}{place[1:]}: {passage.text}" if place else passage.text
