"""Cutting a streamed text at a stop text, which may come in several pieces."""

from __future__ import annotations


class StopCutter:
    """Passes a text on piece by piece, up to the first stop text and without it.

    What may yet become a stop text is held back until it is clear.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.has_stopped = False

    def feed(self, piece: str) -> str:
        """Take the next piece; returns what can be passed on now."""
        if not self._stops:
            return piece
        if self.has_stopped or not piece:
            return ""
        text = self._held + piece
        ends = [end for end in map(text.find, self._stops) if end >= 0]
        if ends:
            self.has_stopped = True
            self._held = ""
            return text[: min(ends)]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        """What was held back, now that nothing more comes."""
        rest, self._held = self._held, ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """How much of the end of `text` is the beginning of `stop`."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
