"""What ends a job before it returns: its time limit, a stop request, the worker's own end."""

from __future__ import annotations

from typing import Any

import gevent
from rq.timeouts import BaseDeathPenalty


class JobStopped(BaseException):
    """Raised inside a job that somebody stopped. Clean up and let it pass."""


class WorkerStopping(BaseException):
    """Raised inside a job that is still running when the worker's grace period is over.

    Give the row's lease back so that another worker takes it at once, and let it pass.
    """


class GreenletDeathPenalty(BaseDeathPenalty):
    """RQ's time limit for one greenlet among many: alarm signals can only serve one job."""

    def __init__(self, timeout: float, exception: type[Exception], **kwargs: Any) -> None:
        super().__init__(timeout, exception, **kwargs)  # type: ignore[no-untyped-call]
        self._timer: gevent.Timeout | None = None

    def setup_death_penalty(self) -> None:
        """Start the clock; a limit of 0 or less is no limit."""
        if self._timeout <= 0:
            return
        error = self._exception(
            f"Task exceeded maximum timeout value ({self._timeout} seconds)"
        )
        self._timer = gevent.Timeout.start_new(self._timeout, error)

    def cancel_death_penalty(self) -> None:
        """Stop the clock."""
        if self._timer is not None:
            self._timer.close()
            self._timer = None
