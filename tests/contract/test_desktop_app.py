"""The torbiz desktop app, replayed call by call as its client makes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import httpx2 as httpx
import pytest

from app.core.ids import new_secret
from tests.fixtures.hub import MakeHub, RunningHub
from tests.fixtures.waiting import eventually
from tests.research.engine import ResearchEngine

_numbers = count(1)


@pytest.fixture(scope="module")
def hub(make_hub: MakeHub) -> RunningHub:
    """A hub whose all-models answers with what the app reads."""
    return make_hub(TORBIZ_ALL_MODELS="objects", SYNC_WAIT_S="20")


@dataclass
class App:
    """The app: it keeps a token and a user id, and nothing else."""

    http: httpx.Client
    email: str
    password: str
    token: str = ""
    user_id: int = 0
    device_token: str = ""

    def call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """As its axios does: a token when it has one, and its own Accept."""
        headers = {"Accept": "application/json, text/plain, */*"}
        if self.token:
            headers["Authorization"] = f"Token {self.token}"
        return self.http.request(method, path, json=body, headers=headers)

    def sign_in(self) -> httpx.Response:
        answer = self.call(
            "POST", "/client/login/", {"email": self.email, "password": self.password}
        )
        if answer.is_success:
            data = answer.json()
            self.token, self.user_id = data["token"], data["user_id"]
            self.device_token = data["device_token"]
        return answer

    def stream(self, question: str, model: str) -> list[str]:
        """The pieces that the app would show, read as it reads them."""
        shown: list[str] = []
        body = {"client": self.user_id, "question_text": question, "desired_model": model}
        headers = {"Authorization": f"Token {self.token}"}
        with self.http.stream(
            "POST", "/inference/stream/", json=body, headers=headers
        ) as answer:
            assert answer.is_success
            for line in answer.iter_lines():
                text, is_over = read_line(line)
                if text:
                    shown.append(text)
                if is_over:
                    break
        return shown


def read_line(line: str) -> tuple[str, bool]:
    """What the app makes of a line: text to show, and whether the answer is over."""
    line = line.strip()
    if not line:
        return "", False
    raw = line.removeprefix("data:").strip()
    try:
        data = json.loads(raw)
    except ValueError:
        return ("" if line.startswith("data:") else line), False
    text = next((data[k] for k in ("token", "text", "content", "delta") if data.get(k)), "")
    return text, bool(data.get("done") or data.get("complete") or data.get("finished"))


@pytest.fixture
def desktop(hub: RunningHub) -> Iterator[App]:
    """The app of somebody who has just registered and signed in."""
    name = f"desk-{next(_numbers)}"
    with httpx.Client(base_url=hub.url, timeout=30) as http:
        found = App(http, f"{name}@example.org", new_secret("", 12))
        body = {"username": name, "email": found.email, "password": found.password,
                "confirm_password": found.password, "terms_accepted": True}  # fmt: skip
        assert found.call("POST", "/client/register/", body).is_success
        assert found.sign_in().is_success
        yield found


def test_it_starts_by_asking_whether_its_session_lives(desktop: App) -> None:
    assert desktop.call("GET", "/client/list/").status_code == 200
    desktop.token = "wt_from-last-year"
    assert desktop.call("GET", "/client/list/").status_code == 401


def test_registering_twice_is_said_beside_the_field(desktop: App) -> None:
    body = {"username": "someone-else", "email": desktop.email, "password": "pass word 1",
            "confirm_password": "pass word 1", "terms_accepted": True}  # fmt: skip
    desktop.token = ""
    answer = desktop.call("POST", "/client/register/", body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["email"]
    assert isinstance(answer.json()["email"][0], str)


def test_signing_in_gives_what_it_checks_to_be_there(desktop: App) -> None:
    desktop.token = ""
    answer = desktop.sign_in()
    assert answer.status_code == 201
    data = answer.json()
    assert data["token"]
    assert data["user_id"]
    assert {"device_token", "username", "profile_image", "profile_image_url"} <= set(data)
    desktop.token, desktop.password = "", "wrong"
    refused = desktop.sign_in()
    assert refused.status_code == 401
    assert isinstance(refused.json()["detail"], str)


def test_google_is_503_where_it_is_not_set_up(desktop: App) -> None:
    desktop.token = ""
    answer = desktop.call("POST", "/client/google-auth/", {"token": "a.b.c"})
    assert answer.status_code == 503
    assert set(answer.json()) == {"detail"}


def test_it_lists_models_and_preselects_one_that_is_available(
    hub: RunningHub, desktop: App
) -> None:
    served = hub.serve()
    models = desktop.call("GET", "/llm_models/all-models/").json()
    assert all(
        set(m) == {"model_id", "name", "description", "min_gpu_memory", "is_available"}
        for m in models
    )
    assert served.model in [m["model_id"] for m in models if m["is_available"]]


def test_it_shows_the_answer_as_it_flows_and_nothing_else(
    hub: RunningHub, desktop: App
) -> None:
    served = hub.serve()
    assert "".join(desktop.stream("Why?", served.model)) == "Hello world"
    [kept] = desktop.call("GET", "/inference/").json()
    assert (kept["answer_text"], kept["client"]) == ("Hello world", desktop.user_id)


def test_without_streaming_it_reads_answer_text(hub: RunningHub, desktop: App) -> None:
    served = hub.serve()
    body = {"client": desktop.user_id, "question_text": "Why?", "desired_model": served.model}
    answer = desktop.call("POST", "/inference/", body)
    assert answer.status_code == 201
    assert answer.json()["answer_text"] == "Hello world"


def test_a_model_that_nobody_serves_is_an_error_before_any_stream(desktop: App) -> None:
    body = {
        "client": desktop.user_id,
        "question_text": "Why?",
        "desired_model": "nobody/has-it",
    }
    answer = desktop.call("POST", "/inference/stream/", body)
    assert answer.status_code in {404, 503}
    assert set(answer.json()) == {"detail"}


def test_research_is_plain_text_all_of_which_may_be_shown(
    hub: RunningHub, desktop: App
) -> None:
    from tests.fakes.openai_engine import serve

    server = hub.stack.enter_context(serve(ResearchEngine()))
    hub.serve(model="researcher", endpoint_url=server.url)
    answer = desktop.call(
        "POST", "/deepresearch/", {"client": desktop.user_id, "question_text": "The tower?"}
    )
    assert answer.status_code == 201
    assert answer.headers["content-type"].startswith("text/plain")
    assert not any(line.startswith(("data:", "{", ":")) for line in answer.text.splitlines())
    [kept] = desktop.call("GET", f"/deepresearch/by_client/?client={desktop.user_id}").json()
    assert kept["answer_text"] == answer.text
    again = desktop.call("POST", f"/deepresearch/{kept['id']}/regenerate/", {})
    assert again.status_code == 201
    assert again.text
    assert desktop.call("DELETE", f"/deepresearch/{kept['id']}/").status_code == 204
    assert desktop.call("GET", f"/deepresearch/{kept['id']}/").status_code == 404


def machine(desktop: App, **changes: Any) -> dict[str, Any]:
    """What it finds out about the machine: numbers where the contract has texts."""
    return {
        "user": desktop.user_id, "model_name": "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        "gpu_info": "NVIDIA GeForce RTX 4090 (4.0 GB VRAM)", "cpu_name": "AMD Ryzen 9",
        "cpu_core": 16, "cpu_frequency": 3400, "total_memory": 64, "total_swap": 8, "ram": 64,
        "os_name": "Linux", "os_version": "6.1", **changes,
    }  # fmt: skip


def test_it_shares_a_gpu_beats_and_stops_sharing(desktop: App) -> None:
    shared = desktop.call("POST", "/llm_models/register/", machine(desktop))
    assert shared.status_code == 201
    token = shared.json()["node_token"]
    assert len(token) >= 16
    [gpu] = desktop.call("GET", "/gpu/list/").json()
    assert (gpu["cpu_core"], gpu["user"]) == ("16", desktop.user_id)
    for _ in range(3):
        beat = desktop.call(
            "POST", "/llm_models/heartbeat/", {"node_token": token, "model_name": "x"}
        )
        assert beat.status_code == 201
    gone = desktop.call("DELETE", "/llm_models/deregister/", {"node_token": token})
    assert gone.status_code == 204
    assert (
        desktop.call("DELETE", "/llm_models/deregister/", {"node_token": token}).status_code
        == 404
    )
    eventually(
        lambda: desktop.call("POST", "/llm_models/heartbeat/", {"node_token": token}).status_code
        == 404,
        what="the node's token is forgotten",
    )  # fmt: skip


def test_sharing_wrongly_is_said_by_field(desktop: App) -> None:
    missing = desktop.call("DELETE", "/llm_models/deregister/", {})
    assert missing.status_code == 400
    # At every sign-in the app sends its user's id as the model's name.
    number = desktop.call(
        "POST", "/llm_models/register/", machine(desktop, model_name=desktop.user_id)
    )
    assert number.status_code == 400
    assert list(number.json()) == ["model_name"]
    assert desktop.call("GET", "/gpu/list/").json() == []


def test_signing_out_ends_the_token(desktop: App) -> None:
    answer = desktop.call("POST", "/client/logout/", {"device_token": desktop.device_token})
    assert answer.status_code == 201
    assert desktop.call("GET", "/client/list/").status_code == 401
