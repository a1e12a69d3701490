"""When to come again: what a busy engine says reaches the caller, in every dialect."""

from __future__ import annotations

from typing import Any

import httpx2 as httpx
import pytest

from tests.fixtures.hub import Caller, RunningHub

BUSY = b'{"error":{"message":"the queue is full"}}'
CHAT = {"messages": [{"role": "user", "content": "Why?"}]}
DOORS: dict[str, tuple[str, dict[str, Any]]] = {
    "/v1/chat/completions": ("model", CHAT),
    "/v1/chat/completions streamed": ("model", {**CHAT, "stream": True}),
    "/v1/completions": ("model", {"prompt": "Why?"}),
    "/inference/": ("desired_model", {"question_text": "Why?"}),
    "/inference/stream/": ("desired_model", {"question_text": "Why?"}),
}


def ask(hub: RunningHub, caller: Caller, door: str, model: str) -> httpx.Response:
    name, body = DOORS[door]
    return httpx.post(
        hub.url + door.split()[0],
        json={**body, name: model},
        headers=caller.headers,
        timeout=20,
    )


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_engine_is_503_with_its_own_retry_after(
    hub: RunningHub, caller: Caller, door: str, status: int
) -> None:
    served = hub.serve(status=status, error_body=BUSY, error_headers={"Retry-After": "7"})

    answer = ask(hub, caller, door, served.model)

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
    assert "the queue is full" in answer.text
    assert hub.run_of(served.model).error_code == "engine_overloaded"


@pytest.mark.parametrize("said", ["86400", "-1", "soon", None])
def test_an_engine_cannot_send_callers_away_for_long(
    hub: RunningHub, caller: Caller, said: str | None
) -> None:
    headers = {"Retry-After": said} if said is not None else {}
    served = hub.serve(status=503, error_body=BUSY, error_headers=headers)

    answer = ask(hub, caller, "/v1/completions", served.model)

    assert answer.status_code == 503
    assert 1 <= int(answer.headers["Retry-After"]) <= 60


def test_a_run_that_finds_a_free_engine_then_has_no_error(
    hub: RunningHub, caller: Caller
) -> None:
    busy = hub.serve(status=503, error_body=BUSY, error_headers={"Retry-After": "7"})
    hub.serve(model=busy.model)

    answers = [ask(hub, caller, "/v1/completions", busy.model) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert hub.run_of(busy.model).error_code is None


def test_a_broken_engine_is_still_502(hub: RunningHub, caller: Caller) -> None:
    served = hub.serve(status=500, error_body=b"no", error_headers={"Retry-After": "7"})

    assert ask(hub, caller, "/v1/completions", served.model).status_code == 502
