"""What a model writes, made fit for a report while it is still being written."""

from __future__ import annotations

from app.core.research.citations import CitationFilter
from app.core.research.fences import FenceFilter
from app.core.research.repeats import RepeatFilter

# Between these, a text that broke off and its continuation are two words.
_ENDS = ".,;:!?)]}\"'”’"
_MOST_REPEATS = 3
_OPEN, _CLOSE = "<think>", "</think>"


class Cleaner:
    """Drops a leading `<think>…</think>`, leading space, fences, sentences said before, and
    citations of nothing.

    What comes out depends on the whole text alone, not on where it was cut into pieces.
    """

    def __init__(self, source_count: int) -> None:
        self._citations = CitationFilter(source_count)
        self._fences = FenceFilter()
        self._repeats = RepeatFilter()
        self._head: str | None = ""
        self._is_broken_off = False
        self.text = ""

    @property
    def is_circular(self) -> bool:
        """Whether the model says the same again and again: nothing new will come."""
        return self._repeats.count >= _MOST_REPEATS

    def feed(self, piece: str) -> str:
        """The text that is certain by now."""
        if self._head is not None:
            piece = self._pass_head(piece)
        elif self._is_broken_off and piece:
            piece = self._join(piece)
        return self._keep(self._filter(piece)) if piece else ""

    def end(self) -> str:
        """The rest, when nothing follows."""
        rest = ""
        if self._head is not None and not self._head.startswith(_OPEN):
            rest = self._filter(self._head)
        self._head = None
        rest += self._citations.feed(
            self._repeats.feed(self._fences.end()) + self._repeats.end()
        )
        return self._keep(rest + self._citations.end())

    def drop(self) -> None:
        """The text broke off: whatever was not given yet is forgotten."""
        self._head = None if self.text else ""
        self._citations.drop()
        self._fences.drop(self.text)
        self._repeats = RepeatFilter(self.text)
        self._is_broken_off = bool(self.text)

    def _filter(self, piece: str) -> str:
        return self._citations.feed(self._repeats.feed(self._fences.feed(piece)))

    def _join(self, piece: str) -> str:
        """The first piece after a break: models begin it without the space that they mean."""
        self._is_broken_off = False
        last = self.text[-1:]
        are_words = piece[0].isalnum() or piece[0] in "([\"'“‘*`"
        return f" {piece}" if are_words and (last.isalnum() or last in _ENDS) else piece

    def _pass_head(self, piece: str) -> str:
        """What follows the thinking; nothing while it can't be told from an answer."""
        head = f"{self._head}{piece}".lstrip()
        self._head = head
        if head.startswith(_OPEN):
            _, closed, rest = head.partition(_CLOSE)
            if not closed:
                return ""
            self._head = ""
            return self._pass_head(rest) if rest.strip() else ""
        if _OPEN.startswith(head):
            return ""
        self._head = None
        return head

    def _keep(self, text: str) -> str:
        self.text += text
        return text
