"""Heavy calls beside the event loop: which may run at once."""

from __future__ import annotations

import subprocess
import sys

_UNDER_GEVENT = """
from gevent import monkey; monkey.patch_all()
import gevent
from app.core.offload import run_off_loop_in_turn

inside, most = 0, 0

def work():
    global inside, most
    inside += 1
    most = max(most, inside)
    for _ in range(20):
        monkey.get_original("time", "sleep")(0.001)
    inside -= 1

def most_at_once(run):
    global most
    most = 0
    gevent.joinall([gevent.spawn(run, work) for _ in range(4)], raise_error=True)
    return most

assert most_at_once(run_off_loop_in_turn) == 1
killed = gevent.spawn(run_off_loop_in_turn, work)
gevent.sleep(0.005)
killed.kill()
assert most_at_once(run_off_loop_in_turn) == 1
try:
    run_off_loop_in_turn(int, "no number")
except ValueError:
    print("ok")
"""


def test_libraries_have_one_real_thread_between_them() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _UNDER_GEVENT], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "ok\n", done.stderr


def test_without_gevent_calls_are_made_as_they_are() -> None:
    from app.core.offload import run_off_loop_in_turn

    assert run_off_loop_in_turn(int, "7") == 7
