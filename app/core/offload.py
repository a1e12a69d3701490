"""CPU-heavy calls, kept off the event loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from gevent import get_hub
from gevent.monkey import is_module_patched
from gevent.threadpool import ThreadPool

Result = TypeVar("Result")


def run_off_loop(function: Callable[..., Result], *args: Any) -> Result:
    """`function(*args)`, in a real thread when this process runs on gevent's loop.

    Password hashing takes a quarter of a second: on the loop it would stop every stream.
    For native code that takes no locks; Python libraries run by `run_off_loop_in_turn`.
    """
    if not is_module_patched("threading"):
        return function(*args)
    result: Result = get_hub().threadpool.apply(function, args)
    return result


def run_off_loop_in_turn(function: Callable[..., Result], *args: Any) -> Result:
    """Like `run_off_loop`, one call at a time.

    The locks that every library takes, those of imports and of logging, are gevent's in such
    a process. Of two real threads that want the same one, the second may wait for ever. Two
    would be no faster than one either.
    """
    if not is_module_patched("threading"):
        return function(*args)
    result: Result = _only_thread().apply(function, args)
    return result


@cache
def _only_thread() -> ThreadPool:
    return ThreadPool(1)
