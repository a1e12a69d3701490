"""Nodes that lie, hang and break: every run ends with a reason, on another node if it can."""

from __future__ import annotations

import json

import httpx2 as httpx
import pytest

from app.core.models import Replica
from tests.fakes.faults import AFTER_TEXT, Fault
from tests.fixtures.hub import Caller, RunningHub, Served
from tests.fixtures.waiting import eventually

BEFORE_TEXT = [fault for fault in Fault if fault not in AFTER_TEXT]


def ask(hub: RunningHub, caller: Caller, model: str, *, stream: bool = False) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    return httpx.post(
        f"{hub.url}/v1/chat/completions", json=body, headers=caller.headers, timeout=30
    )


@pytest.mark.slow
@pytest.mark.parametrize("fault", BEFORE_TEXT, ids=lambda fault: fault.name.lower())
def test_a_node_that_breaks_before_its_first_token_is_an_http_error(
    hub: RunningHub, caller: Caller, fault: Fault
) -> None:
    served = hub.serve(fault=fault)
    answer = ask(hub, caller, served.model, stream=True)
    assert answer.status_code in (502, 503), answer.text
    assert answer.json()["error"]["message"]
    run = hub.run_of(served.model)
    assert (run.state, run.finish_reason) == ("failed", "error")
    assert run.error


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", sorted(AFTER_TEXT, key=str), ids=lambda fault: fault.name.lower()
)
def test_a_node_that_breaks_in_its_answer_ends_the_stream_with_an_error(
    hub: RunningHub, caller: Caller, fault: Fault
) -> None:
    served = hub.serve(fault=fault)
    answer = ask(hub, caller, served.model, stream=True)
    assert answer.status_code == 200
    frames = [line for line in answer.text.split("\n\n") if line]
    assert "error" in json.loads(frames[-1][6:])
    assert "[DONE]" not in answer.text
    run = hub.run_of(served.model)
    assert run.state == "failed"
    assert run.answer_text
    assert run.answer_text in "Hello world"


def test_a_run_moves_to_another_node_before_its_first_token(
    hub: RunningHub, caller: Caller
) -> None:
    broken = hub.serve(fault=Fault.CUT, status=503)
    hub.serve(model=broken.model)
    for _ in range(3):
        answer = ask(hub, caller, broken.model)
        assert answer.json()["choices"][0]["message"]["content"] == "Hello world"
    assert len(broken.server.requests) <= 1, "a node that failed is left alone for a while"


def test_a_dead_node_is_tried_once_and_then_skipped(hub: RunningHub, caller: Caller) -> None:
    dead = hub.serve(endpoint_url="http://127.0.0.1:9")
    hub.serve(model=dead.model)
    answer = ask(hub, caller, dead.model)
    assert answer.status_code == 200
    run = hub.run_of(dead.model)
    if run.attempt == 2:
        assert run.tried_replicas == [dead.replica_id]
        with hub.sessions() as session:
            assert session.get_one(Replica, dead.replica_id).failures == 1


def test_an_engine_that_refuses_the_request_is_not_asked_elsewhere(
    hub: RunningHub, caller: Caller
) -> None:
    first = hub.serve(status=400, error_body=b'{"error":{"message":"no such tool"}}')
    second = hub.serve(
        model=first.model, status=400, error_body=b'{"error":{"message":"no such tool"}}'
    )
    answer = ask(hub, caller, first.model)
    assert answer.status_code == 400
    assert "no such tool" in answer.json()["error"]["message"]
    assert len(first.server.requests) + len(second.server.requests) == 1


def test_runs_queue_when_all_places_are_taken(hub: RunningHub, caller: Caller) -> None:
    served = hub.serve(
        concurrency=1, tokens=("a",) * 4, keep_alive_comments=2, keep_alive_seconds=0.1
    )
    bodies = [_open(hub, caller, served) for _ in range(4)]
    for body in bodies:
        assert '"content":"a' in body.result()
    assert served.server.counts.cancelled == 0
    assert len(served.server.requests) == 4
    assert _most_at_once(served) == 1


def _open(hub: RunningHub, caller: Caller, served: Served):  # type: ignore[no-untyped-def]
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(1)
    future = pool.submit(lambda: ask(hub, caller, served.model, stream=True).text)
    pool.shutdown(wait=False)
    return future


def _most_at_once(served: Served) -> int:
    return served.server.counts.most_at_once


def test_a_queue_that_is_full_refuses_with_retry_after(hub: RunningHub, caller: Caller) -> None:
    from datetime import timedelta

    from app.core.clock import utc_now
    from app.core.ids import new_uid
    from app.core.models import Run

    served, now = hub.serve(concurrency=1), utc_now()
    later = now + timedelta(hours=1)
    with hub.sessions.begin() as session:
        for _ in range(1000):
            session.add(
                Run(uid=new_uid(), account_id=caller.id, door="test", kind="chat",
                    model_name=served.model, request={"model": served.model, "kind": "chat"},
                    state="queued", created_at=now, rung_at=later, deadline_at=later)
            )  # fmt: skip
    try:
        answer = ask(hub, caller, served.model)
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
    finally:
        with hub.sessions.begin() as session:
            session.query(Run).where(Run.model_name == served.model).delete()


def test_a_stop_in_the_middle_of_garbage_leaves_no_run_behind(
    hub: RunningHub, caller: Caller
) -> None:
    served = hub.serve(fault=Fault.GARBAGE)
    ask(hub, caller, served.model)
    eventually(lambda: hub.run_of(served.model).state == "failed")
