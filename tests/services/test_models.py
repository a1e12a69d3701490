"""Which models can be asked for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy.orm import Session

from app.core.ids import new_client_id
from app.core.models import KnownModel, Node, Replica
from app.core.services import models
from tests.fixtures.accounts import Person

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("endpoint_url", "relay", "is_listed"),
    [("http://127.0.0.1:9", None, True), (None, "unix:/x", True), (None, None, False)],
)
def test_a_model_is_available_when_the_hub_has_a_way_to_it(
    session: Session,
    owner: Person,
    endpoint_url: str | None,
    relay: str | None,
    is_listed: bool,
) -> None:
    node = Node(
        client_id=new_client_id(), account_id=owner.id, name="n", last_beat_at=NOON,
        relay=relay, created_at=NOON, updated_at=NOON,
    )  # fmt: skip
    session.add_all([node, KnownModel(name="m", first_seen_at=NOON)])
    session.flush()
    session.add(
        Replica(
            node_id=node.id, model_name="m", served_name="m", engine="vllm", state="ready",
            endpoint_url=endpoint_url, concurrency=1, created_at=NOON, updated_at=NOON,
        )
    )  # fmt: skip
    session.commit()
    found = models.list_available(session, now=NOON, offline_after_seconds=90)
    assert bool(found) is is_listed
