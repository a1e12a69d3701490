"""How long to wait before trying again."""

from __future__ import annotations

import random


class Backoff:
    """Doubling delays with jitter: a first try after about `first`, never more than `cap` seconds.

    The jitter takes up to half off, so that the agents of a whole network that lost
    their hub in one moment do not come back in one moment.
    """

    def __init__(self, *, first: float = 1.0, cap: float = 60.0) -> None:
        self._first = first
        self._cap = cap
        self._delay = first

    def next(self, *, at_least: float = 0.0) -> float:
        """Seconds to wait now; `at_least` is what a Retry-After asked for."""
        delay = self._delay * random.uniform(0.5, 1.0)
        self._delay = min(self._cap, self._delay * 2)
        return max(delay, at_least)

    def reset(self) -> None:
        """Start from the first delay again, after something worked."""
        self._delay = self._first
