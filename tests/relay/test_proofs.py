"""A worker tries a TGI that says it is ready, on the way that runs take to it."""

from __future__ import annotations

import pytest
import requests

from app.core.models import Replica
from tests.fakes.tgi import Tgi, serve
from tests.fixtures.waiting import eventually
from tests.relay.conftest import Connect, RelayedNode

pytestmark = pytest.mark.slow


def replica_of(node: RelayedNode) -> Replica:
    with node.hub.sessions() as session:
        return session.query(Replica).filter_by(node_id=node.node_id).one()


def is_listed(node: RelayedNode) -> bool:
    answer = requests.get(
        f"{node.hub.url}/v1/models", headers=node.hub.caller().headers, timeout=10
    )
    return node.model in {row["id"] for row in answer.json()["data"]}


@pytest.mark.parametrize("way", ["relay", "direct"])
def test_an_engine_that_cannot_generate_is_not_offered_until_it_can(
    node: RelayedNode, connect: Connect, way: str
) -> None:
    engine = Tgi(error="generation")
    with serve(engine) as server:
        url = server.url if way == "direct" else None
        if url is None:
            connect(node, server.url)
        report = {
            "model_name": node.model, "served_name": node.model, "engine": "tgi",
            "state": "ready", "endpoint_url": url,
        }  # fmt: skip
        answer = requests.put(
            f"{node.hub.url}/agent/v1/replicas", json={"replicas": [report]}, timeout=10,
            headers={"Authorization": f"Bearer {node.token}"},
        )  # fmt: skip
        assert answer.json()["replicas"][0]["accepted"]

        eventually(lambda: replica_of(node).state == "failed")
        assert "CUDA out of memory" in str(replica_of(node).error)
        assert not is_listed(node)

        engine.error = None
        eventually(lambda: replica_of(node).state == "ready")
        eventually(lambda: is_listed(node))
