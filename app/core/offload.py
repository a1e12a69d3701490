"""CPU-heavy calls, kept off the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from gevent import get_hub
from gevent.monkey import is_module_patched

Result = TypeVar("Result")


def run_off_loop(function: Callable[..., Result], *args: Any) -> Result:
    """`function(*args)`, in a real thread when this process runs on gevent's loop.

    Password hashing takes a quarter of a second: on the loop it would stop every stream.
    """
    if not is_module_patched("threading"):
        return function(*args)
    result: Result = get_hub().threadpool.apply(function, args)
    return result
