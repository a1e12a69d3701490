"""kill -9 of every part while runs flow: none is lost, none is answered twice."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx2 as httpx
import pytest
import sqlalchemy as sa

from app.core.models import Run, UsageRecord
from tests.fixtures.hub import Caller, MakeHub, RunningHub, Served
from tests.fixtures.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("runs-kills")]
FINAL = {"succeeded", "failed", "cancelled"}
# An answer of two seconds: long enough to be killed in.
SLOW = {"tokens": tuple("abcdefghij"), "token_seconds": 0.2}


@pytest.fixture(scope="module")
def alert_hub(make_hub: MakeHub) -> Iterator[RunningHub]:
    """A hub that is quick to notice the dead."""
    hub = make_hub(RUN_LEASE_S="2", FIRST_TOKEN_TIMEOUT_S="5", IDLE_TIMEOUT_S="5")
    yield hub
    hub.stop()


@pytest.fixture
def own_hub(alert_hub: RunningHub) -> RunningHub:
    """The hub, all of it alive, and each part for this test to kill."""
    alert_hub.mend()
    return alert_hub


class Stream:
    """One streamed chat, read in a thread of its own."""

    def __init__(self, hub: RunningHub, caller: Caller, model: str) -> None:
        self.text = ""
        self.frames: list[str] = []
        self.begun = threading.Event()
        self.status = 0
        self._pool = ThreadPoolExecutor(1)
        self.done: Future[None] = self._pool.submit(self._read, hub, caller, model)
        self._pool.shutdown(wait=False)

    def _read(self, hub: RunningHub, caller: Caller, model: str) -> None:
        body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        with httpx.stream(
            "POST",
            f"{hub.url}/v1/chat/completions",
            json=body,
            headers=caller.headers,
            timeout=60,
        ) as answer:
            self.status = answer.status_code
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    self._take(line)
                elif line:
                    self.frames.append(line)

    def _take(self, line: str) -> None:
        self.frames.append(line)
        chunk = json.loads(line[6:])
        if chunk.get("choices"):
            self.text += chunk["choices"][0]["delta"].get("content") or ""
        if self.text:
            self.begun.set()

    @property
    def ended_well(self) -> bool:
        return bool(self.frames) and self.frames[-1] == "data: [DONE]"


def states(hub: RunningHub, model: str) -> list[str]:
    with hub.sessions() as session:
        return list(session.scalars(sa.select(Run.state).where(Run.model_name == model)))


def usage_rows(hub: RunningHub, model: str) -> int:
    query = sa.select(sa.func.count()).where(UsageRecord.model_name == model)
    with hub.sessions() as session:
        return session.scalar(query) or 0


def test_a_run_in_the_middle_of_its_answer_ends_with_a_reason_when_its_worker_is_killed(
    own_hub: RunningHub,
) -> None:
    caller, served = (
        own_hub.caller(),
        own_hub.serve(tokens=("Hel", "lo"), hangs_after_first=True),
    )
    stream = Stream(own_hub, caller, served.model)
    assert stream.begun.wait(60)
    own_hub.kill("worker")
    own_hub.start("worker")
    stream.done.result(timeout=60)
    assert json.loads(stream.frames[-1][6:])["error"]["code"] == "worker_lost"
    run = own_hub.run_of(served.model)
    assert (run.state, run.answer_text, run.attempt) == ("failed", "Hel", 1)
    assert usage_rows(own_hub, served.model) == 1


def test_a_run_without_a_token_yet_is_served_again_when_its_worker_is_killed(
    own_hub: RunningHub,
) -> None:
    caller = own_hub.caller()
    served = own_hub.serve(keep_alive_comments=30, keep_alive_seconds=0.1)
    stream = Stream(own_hub, caller, served.model)
    eventually(lambda: len(served.server.requests) == 1)
    own_hub.kill("worker")
    served.engine.keep_alive_comments = 0
    own_hub.start("worker")
    stream.done.result(timeout=60)
    assert stream.text == "Hello world"
    assert stream.ended_well
    assert own_hub.run_of(served.model).attempt == 2
    assert usage_rows(own_hub, served.model) == 1


def test_runs_accepted_while_no_worker_lives_are_served_when_one_comes(
    own_hub: RunningHub,
) -> None:
    caller, served = own_hub.caller(), own_hub.serve()
    own_hub.kill("worker")
    streams = [Stream(own_hub, caller, served.model) for _ in range(5)]
    eventually(lambda: len(states(own_hub, served.model)) == 5)
    own_hub.start("worker")
    for stream in streams:
        stream.done.result(timeout=60)
        assert stream.text == "Hello world"


def test_readers_get_every_token_once_when_redis_is_killed_in_the_middle(
    own_hub: RunningHub,
) -> None:
    caller, served = own_hub.caller(), own_hub.serve(**SLOW)
    streams = [Stream(own_hub, caller, served.model) for _ in range(4)]
    for stream in streams:
        assert stream.begun.wait(60)
    own_hub.kill_redis()
    assert not any(stream.ended_well for stream in streams)
    own_hub.redis.start()
    for stream in streams:
        stream.done.result(timeout=60)
    assert [stream.text for stream in streams] == ["abcdefghij"] * 4
    assert all(stream.ended_well for stream in streams)
    assert states(own_hub, served.model) == ["succeeded"] * 4


def test_runs_that_waited_in_a_lost_queue_are_served_after_redis_is_back(
    own_hub: RunningHub,
) -> None:
    caller, served = own_hub.caller(), own_hub.serve()
    own_hub.kill("worker")
    streams = [Stream(own_hub, caller, served.model) for _ in range(3)]
    eventually(lambda: len(states(own_hub, served.model)) == 3)
    own_hub.kill_redis()
    shutil.rmtree(own_hub.redis.data_dir / "appendonlydir")
    own_hub.redis.start()
    own_hub.start("worker")
    for stream in streams:
        stream.done.result(timeout=60)
        assert stream.text == "Hello world"


def test_a_stream_whose_web_process_is_killed_is_cancelled_and_kept(
    own_hub: RunningHub,
) -> None:
    caller, served = (
        own_hub.caller(),
        own_hub.serve(tokens=("Hel", "lo"), hangs_after_first=True),
    )
    stream = Stream(own_hub, caller, served.model)
    assert stream.begun.wait(60)
    own_hub.kill("web")
    with pytest.raises(httpx.TransportError):
        stream.done.result(timeout=60)
    eventually(lambda: own_hub.run_of(served.model).state in FINAL)
    assert own_hub.run_of(served.model).answer_text == "Hel"
    own_hub.start("web")
    own_hub.wait_ready()
    again = Stream(own_hub, caller, own_hub.serve().model)
    again.done.result(timeout=60)
    assert again.text == "Hello world"


def test_a_dying_node_hands_its_waiting_runs_to_another(own_hub: RunningHub) -> None:
    caller = own_hub.caller()
    dying = own_hub.serve(keep_alive_comments=100, keep_alive_seconds=0.1)
    streams = [Stream(own_hub, caller, dying.model) for _ in range(3)]
    eventually(lambda: len(dying.server.requests) == 3)
    own_hub.serve(model=dying.model)
    dying.server.stop()
    for stream in streams:
        stream.done.result(timeout=60)
        assert stream.text == "Hello world"
    assert usage_rows(own_hub, dying.model) == 3


def test_many_streams_survive_a_worker_that_is_killed_beside_another(
    own_hub: RunningHub,
) -> None:
    """Every run ends, and each exactly once, whichever of two workers had it."""
    own_hub.start("worker-2")
    caller, served = own_hub.caller(), _wide(own_hub)
    streams = [Stream(own_hub, caller, served.model) for _ in range(30)]
    assert streams[0].begun.wait(60)
    own_hub.kill("worker")
    for stream in streams:
        stream.done.result(timeout=60)
    eventually(lambda: set(states(own_hub, served.model)) <= FINAL)
    assert len(states(own_hub, served.model)) == 30
    assert usage_rows(own_hub, served.model) == 30
    for stream in streams:
        assert "abcdefghij".startswith(stream.text)
        # The killed worker may have sent all its text and not yet written the end.
        if stream.ended_well:
            assert stream.text == "abcdefghij"
        else:
            assert stream.status >= 500 or "error" in json.loads(stream.frames[-1][6:])


def _wide(hub: RunningHub) -> Served:
    return hub.serve(concurrency=64, **SLOW)
