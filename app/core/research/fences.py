"""Dropping the prompt's fences where a small model repeats them in its answer."""

from __future__ import annotations

FENCE = "<<<"
FENCE_END = ">>>"
_STARTS = frozenset(fence[:length] for fence in (FENCE, FENCE_END) for length in range(4))


class FenceFilter:
    """Leaves out lines that are nothing but a fence; holds back what may become one."""

    def __init__(self) -> None:
        self._held = ""
        self._is_inside_line = False

    def feed(self, piece: str) -> str:
        """The text that is certain by now."""
        return "".join(self._take(part) for part in _parts(piece))

    def end(self) -> str:
        """The rest, when nothing follows."""
        rest, self._held = self._held, ""
        return "" if _is_fence(rest) else rest

    def drop(self, text: str) -> None:
        """Forget what is held: `text` is all that was given so far."""
        self._held = ""
        self._is_inside_line = bool(text) and not text.endswith("\n")

    def _take(self, part: str) -> str:
        is_line_end = part.endswith("\n")
        if self._is_inside_line:
            self._is_inside_line = not is_line_end
            return part
        self._held += part
        if not is_line_end and self._held.strip() in _STARTS:
            return ""
        given, self._held = self._held, ""
        self._is_inside_line = not is_line_end
        return "" if _is_fence(given) else given


def _parts(piece: str) -> list[str]:
    """Pieces of lines. Only a line feed ends one: `splitlines` knows eleven more."""
    *lines, last = piece.split("\n")
    return [*(f"{line}\n" for line in lines), *([last] if last else [])]


def _is_fence(line: str) -> bool:
    return line.strip() in (FENCE, FENCE_END)
