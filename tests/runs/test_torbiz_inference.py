"""`/inference/*` as the desktop app and the contract use it."""

from __future__ import annotations

import json
from typing import Any

import httpx2 as httpx
import pytest

from tests.fakes.faults import Fault
from tests.fixtures.hub import Caller, RunningHub
from tests.fixtures.waiting import eventually

FIELDS = {
    "id", "client", "client_username", "question_text", "answer_text", "desired_model",
    "source", "created_at",
}  # fmt: skip


def call(
    hub: RunningHub, caller: Caller, method: str, path: str, body: Any = None
) -> httpx.Response:
    return httpx.request(
        method, f"{hub.url}{path}", json=body, headers=caller.headers, timeout=60
    )


def ask(hub: RunningHub, caller: Caller, **body: Any) -> httpx.Response:
    return call(hub, caller, "POST", "/inference/", {"question_text": "Why?", **body})


def test_a_question_comes_back_answered_with_the_contracts_fields(
    hub: RunningHub, caller: Caller
) -> None:
    served = hub.serve()
    answer = ask(hub, caller, desired_model=served.model, client=caller.id)
    assert answer.status_code == 201
    made = answer.json()
    assert set(made) == FIELDS
    assert (made["answer_text"], made["source"]) == ("Hello world", "platform")
    assert (made["client"], made["client_username"]) == (caller.id, caller.username)
    assert made["created_at"].endswith("Z")
    assert call(hub, caller, "GET", f"/inference/{made['id']}/").json() == made


def test_an_answer_that_is_brought_along_is_kept_and_says_so(
    hub: RunningHub, caller: Caller
) -> None:
    made = ask(hub, caller, desired_model="anything", answer_text="Because.").json()
    assert (made["answer_text"], made["source"]) == ("Because.", "imported")


def test_a_slow_answer_comes_later(hub: RunningHub, caller: Caller) -> None:
    served = hub.serve(tokens=tuple("abcdefgh"), keep_alive_comments=2, keep_alive_seconds=0.3)
    made = ask(hub, caller, desired_model=served.model)
    assert made.status_code == 201
    path = f"/inference/{made.json()['id']}/"
    eventually(lambda: call(hub, caller, "GET", path).json()["answer_text"] == "abcdefgh")


def test_a_model_that_nobody_serves_is_refused_at_once(hub: RunningHub, caller: Caller) -> None:
    answer = ask(hub, caller, desired_model="no-such-model")
    assert answer.status_code in (404, 503)
    assert set(answer.json()) == {"detail"}
    assert call(hub, caller, "GET", "/inference/").json() == []


def test_an_engine_that_fails_is_an_error_in_this_apis_shape(
    hub: RunningHub, caller: Caller
) -> None:
    served = hub.serve(fault=Fault.NOT_HTTP)
    answer = ask(hub, caller, desired_model=served.model)
    assert answer.status_code in (502, 503)
    assert set(answer.json()) == {"detail"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"desired_model": "m"}, "question_text"),
        ({"question_text": "x"}, "desired_model"),
        ({"question_text": "", "desired_model": "m"}, "question_text"),
        ({"question_text": "x", "desired_model": "m", "temperature": "hot"}, "temperature"),
        ({"question_text": "x", "desired_model": "m", "client": "me"}, "client"),
    ],
)
def test_bad_fields_are_named(
    hub: RunningHub, caller: Caller, body: dict[str, Any], field: str
) -> None:
    answer = call(hub, caller, "POST", "/inference/", body)
    assert answer.status_code == 400
    assert isinstance(answer.json()[field], list)


def test_a_client_id_is_accepted_as_text_and_never_as_identity(
    hub: RunningHub, caller: Caller
) -> None:
    served = hub.serve()
    mine = ask(hub, caller, desired_model=served.model, client=str(caller.id))
    theirs = ask(hub, caller, desired_model=served.model, client=hub.caller().id)
    assert (mine.status_code, theirs.status_code) == (201, 403)


def test_a_question_is_its_owners_alone(hub: RunningHub, caller: Caller) -> None:
    served, outsider, admin = hub.serve(), hub.caller(), hub.caller(role="admin")
    made = ask(hub, caller, desired_model=served.model).json()
    path = f"/inference/{made['id']}/"
    new = {"question_text": "x", "desired_model": served.model}
    for method, body in (
        ("GET", None),
        ("PUT", new),
        ("PATCH", {"answer_text": "x"}),
        ("DELETE", None),
    ):
        assert call(hub, outsider, method, path, body).status_code == 404
    assert call(hub, admin, "GET", path).status_code == 200
    assert call(hub, outsider, "GET", "/inference/").json() == []
    assert call(hub, caller, "GET", path).json() == made


def test_patch_of_the_answer_stores_it_and_of_the_question_asks_again(
    hub: RunningHub, caller: Caller
) -> None:
    served = hub.serve()
    made = ask(hub, caller, desired_model=served.model).json()
    path = f"/inference/{made['id']}/"
    stored = call(hub, caller, "PATCH", path, {"answer_text": "Mine."}).json()
    assert (stored["answer_text"], stored["source"]) == ("Mine.", "imported")
    again = call(hub, caller, "PATCH", path, {"question_text": "How?"}).json()
    assert (again["answer_text"], again["source"]) == ("Hello world", "platform")
    assert again["question_text"] == "How?"
    assert served.server.requests[-1].json["messages"][-1]["content"] == "How?"


def test_put_with_an_answer_stores_all_of_it_and_asks_nobody(
    hub: RunningHub, caller: Caller
) -> None:
    made = ask(hub, caller, desired_model="m", answer_text="old").json()
    body = {"question_text": "New?", "desired_model": "n", "answer_text": "new"}
    changed = call(hub, caller, "PUT", f"/inference/{made['id']}/", body).json()
    assert {name: changed[name] for name in body} == body
    assert changed["source"] == "imported"


def test_put_replaces_and_delete_forgets(hub: RunningHub, caller: Caller) -> None:
    served = hub.serve()
    made = ask(hub, caller, desired_model=served.model).json()
    path = f"/inference/{made['id']}/"
    body = {"question_text": "New?", "desired_model": served.model}
    assert call(hub, caller, "PUT", path, body).json()["question_text"] == "New?"
    assert call(hub, caller, "DELETE", path).status_code == 204
    assert call(hub, caller, "GET", path).status_code == 404


def test_lists_are_newest_first_and_paged(hub: RunningHub, caller: Caller) -> None:
    ids = [
        ask(hub, caller, desired_model="m", answer_text=f"a{n}").json()["id"] for n in range(3)
    ]
    answer = call(hub, caller, "GET", "/inference/?page=1&page_size=2")
    assert [row["id"] for row in answer.json()] == [ids[2], ids[1]]
    assert answer.headers["X-Total-Count"] == "3"
    assert call(hub, caller, "GET", "/inference/?page=0").status_code == 400


def frames(answer: httpx.Response) -> list[dict[str, Any]]:
    """The frames, read as strictly as the desktop app does: data lines and blank ones only."""
    found = []
    for line in answer.text.split("\n"):
        if line:
            assert line.startswith("data: "), f"the app would print {line!r}"
            found.append(json.loads(line[6:]))
    return found


def stream(hub: RunningHub, caller: Caller, model: str) -> httpx.Response:
    body = {"client": caller.id, "question_text": "Why?", "desired_model": model}
    return call(hub, caller, "POST", "/inference/stream/", body)


def test_a_stream_is_tokens_and_a_last_frame(hub: RunningHub, caller: Caller) -> None:
    served = hub.serve()
    answer = stream(hub, caller, served.model)
    assert answer.status_code == 201
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    *tokens, last = frames(answer)
    assert "".join(frame["token"] for frame in tokens) == "Hello world"
    assert all(set(frame) == {"token", "done"} and not frame["done"] for frame in tokens)
    assert (last["token"], last["done"], last["reason"]) == ("", True, "stop")
    stored = call(hub, caller, "GET", f"/inference/{last['id']}/").json()
    assert stored["answer_text"] == "Hello world"


def test_a_stream_that_can_not_begin_is_an_http_error(hub: RunningHub, caller: Caller) -> None:
    served = hub.serve(fault=Fault.HANG)
    answer = stream(hub, caller, served.model)
    assert answer.status_code in (502, 503)
    assert set(answer.json()) == {"detail"}


def test_a_stream_that_breaks_says_so_in_its_last_frame(
    hub: RunningHub, caller: Caller
) -> None:
    served = hub.serve(fault=Fault.CUT)
    *tokens, last = frames(stream(hub, caller, served.model))
    assert tokens
    assert last["done"] is True
    assert last["error"]
    assert last["reason"] == "error"


def test_every_carrier_may_stream(hub: RunningHub, caller: Caller) -> None:
    served = hub.serve()
    body = {"question_text": "Why?", "desired_model": served.model}
    login = httpx.post(
        f"{hub.url}/client/login/",
        json={"username": caller.username, "password": caller.password},
    ).json()
    basic = httpx.post(
        f"{hub.url}/inference/stream/", json=body, auth=(caller.username, caller.password)
    )
    token = httpx.post(
        f"{hub.url}/inference/stream/", json=body,
        headers={"Authorization": f"Token {login['token']}"},
    )  # fmt: skip
    assert (basic.status_code, token.status_code) == (201, 201)
