"""A hub of real processes with a web to search, and engines that research is asked of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx2 as httpx
import pytest

from app.core.models import Replica
from tests.fakes.http_server import FakeServer
from tests.fakes.openai_engine import serve
from tests.fixtures.hub import Caller, MakeHub, RunningHub
from tests.research.engine import TOWER_PAGES, ResearchEngine, Web, serve_web


@pytest.fixture(scope="session")
def web() -> Iterator[Web]:
    """Two pages and a search that finds them."""
    found = Web(dict(TOWER_PAGES))
    with serve_web(found) as server:
        found.url = server.url
        yield found


@pytest.fixture(scope="session")
def research_hub(make_hub: MakeHub, web: Web) -> RunningHub:
    """One hub for all tests that leave it as they found it."""
    return make_hub(SEARCH_URL=web.url, FIRST_TOKEN_TIMEOUT_S="5", SYNC_WAIT_S="20")


@dataclass
class Online:
    """A research engine on a node of a hub."""

    engine: ResearchEngine
    server: FakeServer
    model: str
    replica_id: int


def put_online(
    hub: RunningHub, model: str, engine: ResearchEngine, *, context_tokens: int = 8192
) -> Online:
    """A node with this engine, taken before all others for its context."""
    server = hub.stack.enter_context(serve(engine))
    served = hub.serve(model=model, endpoint_url=server.url)
    change_replica(hub, served.replica_id, context_tokens=context_tokens)
    return Online(engine, server, model, served.replica_id)


def change_replica(hub: RunningHub, replica_id: int, **values: object) -> None:
    with hub.sessions.begin() as session:
        replica = session.get_one(Replica, replica_id)
        for name, value in values.items():
            setattr(replica, name, value)


PutOnline = Callable[..., Online]


@pytest.fixture
def online(research_hub: RunningHub) -> Iterator[PutOnline]:
    """Put engines on the shared hub, until the test is over."""
    put: list[Online] = []

    def make(model: str, *, context_tokens: int = 8192, **behaviour: object) -> Online:
        engine = ResearchEngine(**behaviour)  # type: ignore[arg-type]
        found = put_online(research_hub, model, engine, context_tokens=context_tokens)
        put.append(found)
        return found

    yield make
    for found in put:
        change_replica(research_hub, found.replica_id, state="stopped")


@pytest.fixture
def asker(research_hub: RunningHub) -> Caller:
    """A fresh account on the shared hub."""
    return research_hub.caller()


@pytest.fixture
def api(research_hub: RunningHub, asker: Caller) -> Iterator[httpx.Client]:
    """The asker's client of the shared hub."""
    with httpx.Client(base_url=research_hub.url, headers=asker.headers, timeout=60) as client:
        yield client
