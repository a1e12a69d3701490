"""Dropping sentences that a model says again: small ones go round in circles."""

from __future__ import annotations

SHORTEST = 40  # characters; shorter ones may well stand twice in a text
_ENDS = (".", "!", "?")
_NO_PROSE = ("|", "`")  # rows of tables and code are alike for a reason


class RepeatFilter:
    """Leaves out sentences that stood in the text before; holds back what may become one."""

    def __init__(self, begun: str = "") -> None:
        """`begun`: the text so far, all of which was given."""
        self._said: set[str] = set()
        self._sentence = ""
        self._held = ""
        self._may_be_repeated = True
        self.count = 0  # how many were left out
        if begun:
            self.feed(begun)
            self._held, self.count = "", 0
            self._may_be_repeated = not self._sentence

    def feed(self, piece: str) -> str:
        """The text that is certain by now."""
        return "".join(map(self._take, piece))

    def end(self) -> str:
        """The rest, when nothing follows."""
        rest, self._held = self._held, ""
        return "" if self._is_repeated() else rest

    def _take(self, char: str) -> str:
        is_end = char == "\n" or (char.isspace() and self._sentence.endswith(_ENDS))
        self._sentence += char
        self._held += char
        if is_end:
            return self._end_sentence()
        if self._may_be_repeated and self._begins_like_another():
            return ""
        self._may_be_repeated = False
        given, self._held = self._held, ""
        return given

    def _end_sentence(self) -> str:
        given = "" if self._is_repeated() else self._held
        said = self._sentence.strip()
        if len(said) >= SHORTEST and not said.startswith(_NO_PROSE):
            self._said.add(said)
        self._sentence = self._held = ""
        self._may_be_repeated = True
        return given

    def _begins_like_another(self) -> bool:
        begun = self._sentence.strip()
        return any(one.startswith(begun) for one in self._said)

    def _is_repeated(self) -> bool:
        """Whether the sentence was said before; counts it then."""
        is_repeated = self._may_be_repeated and self._sentence.strip() in self._said
        self.count += is_repeated
        return is_repeated
