"""Which parts of the sources a question needs: what is put before a model that reads little."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from app.core.domain.research import Source

PASSAGE_CHARACTERS = 700
_WORD = re.compile(r"\w+")
_SHORTEST_WORD = 3


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a source, by the source's number."""

    number: int
    title: str
    text: str


def choose_passages(
    question: str, sources: Sequence[Source], *, characters: int
) -> list[Passage]:
    """The passages that say most about the question, as many as fit, in the sources' order."""
    passages = [
        Passage(source.number, source.title, text)
        for source in sources
        for text in split_passages(source.text)
    ]
    if not passages:
        return []
    words = [Counter(_words(passage.text)) for passage in passages]
    wanted = set(_words(question))
    rarity = {
        word: math.log(1 + len(passages) / (1 + sum(1 for found in words if word in found)))
        for word in wanted
    }
    scores = [
        sum(rarity[word] * min(found[word], 3) for word in wanted & found.keys())
        for found in words
    ]
    # Equal scores: the beginning of each source, which mostly says what it is about.
    order = sorted(range(len(passages)), key=lambda at: -scores[at])
    chosen: list[int] = []
    left = characters
    for at in order:
        size = len(passages[at].text) + len(passages[at].title) + 40
        if size <= left:
            chosen.append(at)
            left -= size
    if not chosen and characters > 100:
        best = passages[order[0]]
        return [Passage(best.number, best.title[:40], best.text[: characters - 80])]
    return [passages[at] for at in sorted(chosen)]


def split_passages(text: str) -> list[str]:
    """A text in pieces of at most PASSAGE_CHARACTERS, cut between paragraphs or sentences."""
    pieces: list[str] = []
    current = ""
    for part in _parts(text):
        if current and len(current) + len(part) + 1 > PASSAGE_CHARACTERS:
            pieces.append(current)
            current = ""
        current = f"{current} {part}" if current else part
    return [*pieces, current] if current else pieces


def _parts(text: str) -> list[str]:
    parts: list[str] = []
    for paragraph in text.splitlines():
        for sentence in re.split(r"(?<=[.!?。])\s+", paragraph.strip()):
            parts.extend(
                sentence[start : start + PASSAGE_CHARACTERS]
                for start in range(0, len(sentence), PASSAGE_CHARACTERS)
            )
    return parts


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.lower()) if len(word) >= _SHORTEST_WORD]
