"""`/v1` as its official clients use it, through web, queue, worker and an engine at the wire."""

from __future__ import annotations

import json

import httpx2 as httpx
import openai
import pytest
from huggingface_hub import InferenceClient
from openai import OpenAI

from tests.fixtures.hub import Caller, RunningHub
from tests.fixtures.waiting import eventually

HELLO = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
def sdk(hub: RunningHub, caller: Caller) -> OpenAI:
    """OpenAI's own client, pointed at the hub."""
    return OpenAI(base_url=f"{hub.url}/v1", api_key=caller.api_key, max_retries=0)


def test_the_openai_client_gets_a_whole_answer(hub: RunningHub, sdk: OpenAI) -> None:
    served = hub.serve()
    answer = sdk.chat.completions.create(model=served.model, messages=HELLO)  # type: ignore[arg-type]
    assert answer.choices[0].message.content == "Hello world"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (
        answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    )
    assert answer.usage.completion_tokens == 3


def test_the_openai_client_streams_with_usage_at_the_end(hub: RunningHub, sdk: OpenAI) -> None:
    served = hub.serve()
    chunks = list(
        sdk.chat.completions.create(
            model=served.model,
            messages=HELLO,
            stream=True,  # type: ignore[arg-type]
            stream_options={"include_usage": True},
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "Hello world"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


def test_a_stream_without_the_option_tells_no_usage(hub: RunningHub, sdk: OpenAI) -> None:
    served = hub.serve()
    stream = sdk.chat.completions.create(model=served.model, messages=HELLO, stream=True)  # type: ignore[arg-type]
    assert all(chunk.usage is None and chunk.choices for chunk in stream)


def test_completions_answer_whole_and_streamed(hub: RunningHub, sdk: OpenAI) -> None:
    served = hub.serve()
    whole = sdk.completions.create(model=served.model, prompt="Hello", max_tokens=5)
    assert whole.choices[0].text == "Hello world"
    pieces = sdk.completions.create(model=served.model, prompt="Hello", stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == "Hello world"


def test_sampling_reaches_the_engine_as_it_was_asked(hub: RunningHub, sdk: OpenAI) -> None:
    served = hub.serve()
    sdk.chat.completions.create(
        model=served.model, messages=HELLO, temperature=0.3, top_p=0.9, seed=7,  # type: ignore[arg-type]
        stop=["END"], max_completion_tokens=11,
    )  # fmt: skip
    sent = served.server.requests[-1].json
    assert (sent["temperature"], sent["top_p"], sent["seed"]) == (0.3, 0.9, 7)
    assert (sent["stop"], sent["max_tokens"]) == (["END"], 11)
    assert sent["messages"] == HELLO


def test_tool_calls_pass_through_in_both_forms(hub: RunningHub, sdk: OpenAI) -> None:
    call = {"index": 0, "id": "call_1", "type": "function"}
    served = hub.serve(
        tokens=(),
        finish_reason="tool_calls",
        tool_deltas=(
            {**call, "function": {"name": "weather", "arguments": ""}},
            {"index": 0, "function": {"arguments": '{"city":"Rome"}'}},
        ),
    )
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    whole = sdk.chat.completions.create(model=served.model, messages=HELLO, tools=tools)  # type: ignore[arg-type]
    calls = whole.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.name == "weather"  # type: ignore[union-attr]
    assert json.loads(calls[0].function.arguments) == {"city": "Rome"}  # type: ignore[union-attr]
    assert whole.choices[0].finish_reason == "tool_calls"
    stream = list(
        sdk.chat.completions.create(
            model=served.model,
            messages=HELLO,
            tools=tools,
            stream=True,  # type: ignore[arg-type]
        )
    )
    assert stream[-1].choices[0].finish_reason == "tool_calls"
    names = [
        found.function.name
        for chunk in stream
        for found in chunk.choices[0].delta.tool_calls or []
        if found.function
    ]
    assert names[0] == "weather"


def test_the_hugging_face_client_chats_and_streams(hub: RunningHub, caller: Caller) -> None:
    served = hub.serve()
    client = InferenceClient(base_url=f"{hub.url}/v1", api_key=caller.api_key)
    whole = client.chat_completion(HELLO, model=served.model, max_tokens=9)
    assert whole.choices[0].message.content == "Hello world"
    pieces = client.chat_completion(HELLO, model=served.model, stream=True)
    assert (
        "".join(p.choices[0].delta.content or "" for p in pieces if p.choices) == "Hello world"
    )


def test_models_are_those_that_are_served_now(hub: RunningHub, sdk: OpenAI) -> None:
    served = hub.serve()
    assert served.model in [model.id for model in sdk.models.list()]
    assert sdk.models.retrieve(served.model).id == served.model
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("no-such-model")


def test_a_model_nobody_ever_served_is_404(sdk: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        sdk.chat.completions.create(model="no-such-model", messages=HELLO)  # type: ignore[arg-type]
    assert refused.value.body["code"] == "model_not_found"  # type: ignore[index]


def test_a_known_model_on_no_online_node_is_503_with_retry_after(
    hub: RunningHub, caller: Caller
) -> None:
    served = hub.serve()
    with hub.sessions.begin() as session:
        from app.core.models import Node

        session.get_one(Node, served.node_id).stopped_at = session.get_one(
            Node, served.node_id
        ).last_beat_at
    answer = _post(hub, caller, {"model": served.model, "messages": HELLO})
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json()["error"]["type"] == "server_error"


def test_a_wrong_key_is_refused_as_openai_refuses_it(hub: RunningHub) -> None:
    sdk = OpenAI(base_url=f"{hub.url}/v1", api_key="sk-wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as refused:
        sdk.models.list()
    assert refused.value.body["code"] == "invalid_api_key"  # type: ignore[index]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": HELLO}, "model"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"model": "m", "messages": HELLO, "temperature": 9}, "temperature"),
        ({"model": "m", "messages": HELLO, "n": 2}, "n"),
        ({"model": "m", "messages": "hello"}, "messages"),
    ],
)
def test_bad_requests_say_which_field(
    hub: RunningHub, caller: Caller, body: dict[str, object], param: str
) -> None:
    answer = _post(hub, caller, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_prompt_beyond_the_context_is_400_with_its_code(
    hub: RunningHub, caller: Caller
) -> None:
    served = hub.serve(
        flavour="llamacpp",
        status=400,
        error_body=json.dumps(
            {"error": {"code": 400, "type": "exceed_context_size_error", "message": "too long"}}
        ).encode(),
    )
    answer = _post(hub, caller, {"model": served.model, "messages": HELLO})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_a_key_of_one_model_opens_that_model_alone(hub: RunningHub, caller: Caller) -> None:
    from app.core.clock import utc_now
    from app.core.services import credentials

    mine, another = hub.serve(), hub.serve()
    with hub.sessions.begin() as session:
        key = credentials.issue_api_key(
            session, caller.id, name="scoped", now=utc_now(), model_name=mine.model
        ).secret
    headers = {"Authorization": f"Bearer {key}"}
    allowed = httpx.post(
        f"{hub.url}/v1/chat/completions", json={"model": mine.model, "messages": HELLO},
        headers=headers,
    )  # fmt: skip
    refused = httpx.post(
        f"{hub.url}/v1/chat/completions", json={"model": another.model, "messages": HELLO},
        headers=headers,
    )  # fmt: skip
    elsewhere = httpx.get(f"{hub.url}/client/list/", headers=headers)
    assert (allowed.status_code, refused.status_code, elsewhere.status_code) == (200, 403, 403)


def test_a_run_is_its_owners_alone(hub: RunningHub, caller: Caller) -> None:
    served = hub.serve()
    made = _post(hub, caller, {"model": served.model, "messages": HELLO}).json()["id"]
    for path in (f"/v1/runs/{made}", f"/v1/runs/{made}/events"):
        assert httpx.get(hub.url + path, headers=caller.headers).status_code == 200
        assert httpx.get(hub.url + path, headers=hub.caller().headers).status_code == 404
        assert httpx.get(hub.url + path).status_code == 401
    outsider = hub.caller()
    path = f"/v1/runs/{made}/cancel"
    assert httpx.post(hub.url + path, headers=outsider.headers).status_code == 404


def test_a_runs_page_tells_what_it_used(hub: RunningHub, caller: Caller) -> None:
    served = hub.serve()
    made = _post(hub, caller, {"model": served.model, "messages": HELLO}).json()["id"]
    run = httpx.get(f"{hub.url}/v1/runs/{made}", headers=caller.headers).json()
    assert (run["state"], run["answer"], run["attempts"]) == ("succeeded", "Hello world", 1)
    assert run["usage"] == {"input_tokens": 7, "output_tokens": 3}
    assert run["first_token_ms"] <= run["duration_ms"]


def test_a_reader_that_comes_back_goes_on_after_the_last_event_it_saw(
    hub: RunningHub, caller: Caller
) -> None:
    served = hub.serve(tokens=("a", "b", "c", "d"), keep_alive_seconds=0)
    made = _post(hub, caller, {"model": served.model, "messages": HELLO}).json()["id"]
    whole = _events(hub, caller, made, after=0)
    assert "".join(value for kind, value in whole.values() if kind == "text") == "abcd"
    first = min(whole)
    rest = _events(hub, caller, made, after=first)
    assert rest == {number: event for number, event in whole.items() if number > first}


def _events(
    hub: RunningHub, caller: Caller, run_id: str, *, after: int
) -> dict[int, tuple[str, object]]:
    headers = {**caller.headers, "Last-Event-ID": str(after)}
    text = httpx.get(f"{hub.url}/v1/runs/{run_id}/events", headers=headers).text
    found = {}
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        if fields:
            found[int(fields["id"])] = (fields["event"], json.loads(fields["data"]))
    return found


def test_leaving_a_stream_cancels_the_run_and_keeps_what_was_said(
    hub: RunningHub, caller: Caller
) -> None:
    served = hub.serve(tokens=("Hel", "lo"), hangs_after_first=True)
    with httpx.stream(
        "POST", f"{hub.url}/v1/chat/completions", headers=caller.headers,
        json={"model": served.model, "messages": HELLO, "stream": True},
    ) as stream:  # fmt: skip
        for line in stream.iter_lines():
            if '"content":"Hel' in line:
                break
    eventually(lambda: hub.run_of(served.model).state == "cancelled")
    assert hub.run_of(served.model).answer_text == "Hel"
    eventually(lambda: served.server.counts.cancelled >= 1)


def test_leaving_before_the_first_token_cancels_too(hub: RunningHub, caller: Caller) -> None:
    from tests.fakes.faults import Fault

    served = hub.serve(fault=Fault.SILENT)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{hub.url}/v1/chat/completions",
            headers=caller.headers,
            timeout=0.7,
            json={"model": served.model, "messages": HELLO},
        )
    eventually(lambda: hub.run_of(served.model).state == "cancelled")


def test_cancelling_a_run_ends_its_stream(hub: RunningHub, caller: Caller) -> None:
    served = hub.serve(tokens=("Hel", "lo"), hangs_after_first=True)
    with httpx.stream(
        "POST", f"{hub.url}/v1/chat/completions", headers=caller.headers,
        json={"model": served.model, "messages": HELLO, "stream": True},
    ) as stream:  # fmt: skip
        lines = stream.iter_lines()
        first = next(line for line in lines if '"content":"Hel' in line)
        run_id = json.loads(first[6:])["id"]
        httpx.post(f"{hub.url}/v1/runs/{run_id}/cancel", headers=caller.headers)
        rest = [line for line in lines if line]
    assert json.loads(rest[-1][6:])["error"]["code"] == "cancelled"


def test_revoking_the_key_ends_its_streams(hub: RunningHub, caller: Caller) -> None:
    served = hub.serve(tokens=("Hel", "lo"), hangs_after_first=True)
    keys = httpx.get(f"{hub.url}/api/v1/api-keys", headers=caller.headers).json()["data"]
    with httpx.stream(
        "POST", f"{hub.url}/v1/chat/completions", headers=caller.headers, timeout=4,
        json={"model": served.model, "messages": HELLO, "stream": True},
    ) as stream:  # fmt: skip
        lines = stream.iter_lines()
        next(line for line in lines if '"content":"Hel' in line)
        basic = (caller.username, caller.password)
        gone = httpx.delete(f"{hub.url}/api/v1/api-keys/{keys[0]['id']}", auth=basic)
        assert gone.status_code in (200, 204)
        assert "data: [DONE]" not in list(lines)
    eventually(lambda: hub.run_of(served.model).state == "cancelled")
    eventually(
        lambda: httpx.get(f"{hub.url}/v1/models", headers=caller.headers).status_code == 401,
        timeout=3,
    )


def _post(hub: RunningHub, caller: Caller, body: dict[str, object]) -> httpx.Response:
    return httpx.post(
        f"{hub.url}/v1/chat/completions", json=body, headers=caller.headers, timeout=20
    )
