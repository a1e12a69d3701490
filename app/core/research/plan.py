"""A plan in a model's answer: the sub-questions, however the model wrote them down."""

from __future__ import annotations

import re

MOST_QUESTIONS = 4
_MOST_CHARACTERS = 300
_FEWEST_WORDS = 3
_ITEM = re.compile(
    r"^\s*(?:\*\*)?(?:\d{1,2}\s*[.):]|[-*•+]|Q\d{1,2}[.:)]?)\s*(.+)$", re.IGNORECASE
)
_DECORATION = re.compile(r"^[\s\"'“”*_`#]+|[\s\"'“”*_`]+$")


def parse_plan(text: str, question: str) -> list[str]:
    """The sub-questions that the model listed; the question alone when it listed none."""
    found: list[str] = []
    seen: set[str] = set()
    for line in text.splitlines():
        item = _ITEM.match(line)
        candidate = _clean(item[1]) if item else ""
        key = re.sub(r"\W+", " ", candidate.lower()).strip()
        if not _is_question(candidate) or key in seen:
            continue
        seen.add(key)
        found.append(candidate)
    return found[:MOST_QUESTIONS] or [one_line(question, _MOST_CHARACTERS)]


def one_line(text: str, most: int) -> str:
    """The text in one line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def _clean(text: str) -> str:
    return " ".join(_DECORATION.sub("", text).split())


def _is_question(text: str) -> bool:
    """Whether a line can be a question of its own: small models also list scraps and novels."""
    return len(text.split()) >= _FEWEST_WORDS and len(text) <= _MOST_CHARACTERS
