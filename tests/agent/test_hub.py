"""The hub client against a real server, with faults."""

from __future__ import annotations

from typing import Any

import pytest

from agent.hub import HubClient, HubRefused, HubUnavailable, NotEnrolled
from agent.state import Identity
from tests.fakes.hub import ENROLMENT_TOKEN, FakeHub, Fault

BEAT = "/agent/v1/heartbeat"


def make_client(hub: FakeHub, *, token: str | None = ENROLMENT_TOKEN) -> HubClient:
    saved: list[Identity] = []
    client = HubClient(
        Identity(hub=hub.url, client_id="ab" * 16),
        enrolment_token=token,
        enrolment=lambda: {"name": "node", "os_type": "linux", "inventory": {}},
        on_identity=saved.append,
    )
    client.saved = saved  # type: ignore[attr-defined]
    return client


def test_enrolment_keeps_the_node_token() -> None:
    with FakeHub(heartbeat_seconds=12) as hub:
        client = make_client(hub)
        identity = client.enrol()
        (call,) = hub.of("/agent/v1/enrol")
    assert call.token == ENROLMENT_TOKEN
    assert call.body["client_id"] == "ab" * 16
    assert identity.node_token == hub.node_token
    assert identity.heartbeat_seconds == 12
    saved: list[Any] = client.saved  # type: ignore[attr-defined]
    assert saved == [identity]


def test_a_refused_enrolment_says_so() -> None:
    with FakeHub() as hub:
        hub.accept_enrolment = False
        with pytest.raises(NotEnrolled, match="refused"):
            make_client(hub).enrol()


def test_without_an_enrolment_token_the_way_in_is_told() -> None:
    with FakeHub() as hub, pytest.raises(NotEnrolled, match="--token"):
        make_client(hub, token=None).enrol()


def test_a_forgotten_node_enrols_again_and_repeats_the_call() -> None:
    with FakeHub() as hub:
        client = make_client(hub)
        client.enrol()
        hub.forget_node()
        assert client.heartbeat({"sequence": 1}).desired_revision == 1
        assert len(hub.of("/agent/v1/enrol")) == 2


def test_a_forgotten_node_without_a_token_stops_with_the_reason() -> None:
    with FakeHub() as hub:
        client = make_client(hub)
        client.enrol()
        client._enrolment_token = None
        hub.forget_node()
        with pytest.raises(NotEnrolled, match="removed"):
            client.heartbeat({"sequence": 1})


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_obeyed(status: int) -> None:
    with FakeHub() as hub:
        client = make_client(hub)
        client.enrol()
        hub.fail(BEAT, Fault(status, {"Retry-After": "17"}))
        with pytest.raises(HubUnavailable) as caught:
            client.heartbeat({"sequence": 1})
    assert caught.value.retry_after_seconds == 17


def test_an_unreachable_hub_is_unavailable() -> None:
    with FakeHub() as hub:
        client = make_client(hub)
    with pytest.raises(HubUnavailable, match="reach"):
        client.enrol()


def test_a_refusal_is_no_reason_to_try_again() -> None:
    with FakeHub() as hub:
        client = make_client(hub)
        client.enrol()
        hub.fail(BEAT, Fault(400))
        with pytest.raises(HubRefused, match="as ordered"):
            client.heartbeat({"sequence": 1})


def test_a_redirect_does_not_carry_the_token_away() -> None:
    with FakeHub() as hub, FakeHub() as elsewhere:
        client = make_client(hub)
        client.enrol()
        hub.fail(BEAT, Fault(307, {"Location": elsewhere.url + BEAT}))
        with pytest.raises(HubRefused):
            client.heartbeat({"sequence": 1})
        assert elsewhere.calls == []
