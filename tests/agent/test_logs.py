"""Log lines on their way to the hub."""

from __future__ import annotations

from agent.hub import HubClient
from agent.logs import LINES_KEPT, LINES_PER_BATCH, LogBuffer, Redactor, level_of, ship_once
from agent.state import Identity
from tests.fakes.hub import FakeHub, Fault

LOGS = "/agent/v1/logs"


def make_client(hub: FakeHub) -> HubClient:
    hub.node_token = "token"
    identity = Identity(hub=hub.url, client_id="0" * 32, node_token="token")
    return HubClient(
        identity, enrolment_token=None, enrolment=dict, on_identity=lambda _identity: None
    )


def test_secrets_do_not_leave_the_machine() -> None:
    redactor = Redactor()
    redactor.hide("my-own-engine-key")
    for line in (
        "key my-own-engine-key is set",
        "HF_TOKEN=hf_AbCdEfGhIjKlMnOpQrStUvWxYz",
        "using sk-abcdefghijklmnopqrstuvwxyz012345",
        "Authorization: Bearer eyJhbGciOi.abc.def",
        'Args { model_id: "m", api_key: Some("s3cretvalue") }',
    ):
        cleaned = redactor.clean(line)
        assert "[hidden]" in cleaned, line
        for secret in ("my-own", "AbCdEf", "abcdefghij", "eyJhbG", "s3cret"):
            assert secret not in cleaned


def test_harmless_lines_stay_as_they_are() -> None:
    line = "\x1b[32mINFO\x1b[0m loaded 4 tokens in 2 s, 93% key-value cache"
    assert Redactor().clean(line) == "INFO loaded 4 tokens in 2 s, 93% key-value cache"


def test_levels_are_read_from_the_engines_own_words() -> None:
    assert level_of("0.00.123 E srv load_model: failed") == "error"
    assert level_of("0.00.123 W srv  slow") == "warning"
    assert level_of("2026-01-01 ERROR boom") == "error"
    assert level_of("loading the errors module") == "info"


def test_lines_go_in_batches_of_one_origin() -> None:
    buffer = LogBuffer(Redactor())
    for number in range(LINES_PER_BATCH + 5):
        buffer.add("engine", "tiny", "info", f"line {number}")
    buffer.add("agent", None, "warning", "something else")
    with FakeHub() as hub:
        ship_once(buffer, make_client(hub))
        bodies = [call.body for call in hub.of(LOGS)]
    assert [len(body["lines"]) for body in bodies] == [LINES_PER_BATCH, 5, 1]
    assert bodies[0]["model_name"] == "tiny"
    assert bodies[2] == {**bodies[2], "source": "agent", "model_name": None}
    assert bodies[0]["lines"][0]["message"] == "line 0"


def test_long_lines_are_cut() -> None:
    buffer = LogBuffer(Redactor())
    buffer.add("engine", "tiny", "info", "é" * 10_000)
    (line,) = buffer.take()
    assert len(line.message.encode()) <= 4096


def test_lines_wait_for_a_hub_that_is_away_and_the_oldest_go_first() -> None:
    buffer = LogBuffer(Redactor())
    for number in range(LINES_KEPT + 100):
        buffer.add("engine", "tiny", "info", f"line {number}")
    with FakeHub() as hub:
        client = make_client(hub)
        hub.fail(LOGS, Fault(503))
        ship_once(buffer, client)
        assert len(hub.of(LOGS)) == 1
        ship_once(buffer, client)
        lines = [line for call in hub.of(LOGS)[1:] for line in call.body["lines"]]
    assert "older lines were dropped" in lines[0]["message"]
    assert lines[-1]["message"] == f"line {LINES_KEPT + 99}"
