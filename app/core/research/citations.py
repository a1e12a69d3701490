"""Citations in a text that is still being written: only sources that exist may be cited."""

from __future__ import annotations

import re

_CITATION = re.compile(r"( ?)\[(\d[\d,;\s–-]{0,23})\]")
# What could still become a citation stays back until it is one, or can't be any more.
_UNDECIDED = re.compile(r" ?(?:\[[\d,;\s–-]{0,24})?$")
_RANGE = re.compile(r"(\d+)(?:\s*[–-]\s*(\d+))?")
_MOST_IN_A_RANGE = 20


class CitationFilter:
    """Takes a text piece by piece and gives it without citations of sources that are not there.

    What comes out depends on the whole text alone, not on where it was cut into pieces.
    """

    def __init__(self, source_count: int) -> None:
        self._count = source_count
        self._held = ""

    def feed(self, piece: str) -> str:
        """The text that is certain by now."""
        text = self._held + piece
        undecided = _UNDECIDED.search(text)
        cut = undecided.start() if undecided else len(text)
        self._held = text[cut:]
        return self._clean(text[:cut])

    def drop(self) -> None:
        """Forget what is held back: the text broke off there."""
        self._held = ""

    def end(self) -> str:
        """The rest, when nothing follows."""
        rest, self._held = self._held, ""
        return self._clean(rest)

    def _clean(self, text: str) -> str:
        return _CITATION.sub(self._replace, text)

    def _replace(self, found: re.Match[str]) -> str:
        numbers = [number for number in cited_numbers(found[2]) if 1 <= number <= self._count]
        if not numbers:
            return ""
        return found[1] + "".join(f"[{number}]" for number in dict.fromkeys(numbers))


def cited_numbers(inside: str) -> list[int]:
    """The numbers in `1, 3-5`."""
    numbers: list[int] = []
    for first, last in _RANGE.findall(inside):
        start, end = int(first), int(last or first)
        if start <= end <= start + _MOST_IN_A_RANGE:
            numbers.extend(range(start, end + 1))
        else:
            numbers.extend((start, end))
    return numbers
