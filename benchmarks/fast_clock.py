"""A web server whose heartbeats are stamped by a clock that runs faster.

`GUNICORN_CMD_ARGS="--worker-class benchmarks.fast_clock.Worker"` and `BENCH_CLOCK`: how many
times as fast, when it began to be so, and what it showed then (unix seconds). With it, ten
minutes hold hours of heartbeats; everything else, timeouts too, goes by the real clock.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from gunicorn.workers.ggevent import GeventWorker

VARIABLE = "BENCH_CLOCK"


@dataclass(frozen=True, slots=True)
class FastClock:
    """Hub time as a function of real time."""

    factor: float
    began: float
    showed: float

    def at(self, real: float) -> float:
        """What it shows at a real moment; both in unix seconds."""
        return self.showed + (real - self.began) * self.factor

    def time_ns(self) -> int:
        """As `time.time_ns`."""
        return int(self.at(time.time()) * 1e9)

    def monotonic(self) -> float:
        """As `time.monotonic`: real."""
        return time.monotonic()

    def as_text(self) -> str:
        """For the environment."""
        return f"{self.factor!r} {self.began!r} {self.showed!r}"


def from_text(text: str) -> FastClock:
    """From the environment."""
    factor, began, showed = map(float, text.split())
    return FastClock(factor, began, showed)


class Worker(GeventWorker):  # type: ignore[misc]
    """The web process as it is, but for the clock of its heartbeats."""

    def load_wsgi(self) -> None:
        """Load the application and give it the clock."""
        super().load_wsgi()
        from app.core.services import heartbeats

        clock = from_text(os.environ[VARIABLE])
        setattr(heartbeats, "time", clock)  # noqa: B010 - a module's own import, not its attribute
