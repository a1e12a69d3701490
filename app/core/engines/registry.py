"""Which kinds of engine there are, and the client of each."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from app.core.domain.errors import InvalidInput
from app.core.engines.base import EngineClient
from app.core.engines.http import HttpClient
from app.core.engines.openai_http import KINDS, OpenAIHttpClient
from app.core.engines.tgi import TgiClient
from app.core.engines.wire import Wire
from app.core.outbound import OutboundPolicy

ENGINE_KINDS = ("tgi", *(kind.name for kind in KINDS))


class EngineRegistry:
    """One client per kind, all over one pool of connections. Built once at start."""

    def __init__(self, policy: OutboundPolicy) -> None:
        self._http = HttpClient(policy.connect)
        wire = Wire(self._http)
        clients: dict[str, EngineClient] = {
            kind.name: OpenAIHttpClient(kind, wire) for kind in KINDS
        }
        clients["tgi"] = TgiClient(wire, self._http)
        self._clients: Mapping[str, EngineClient] = clients

    def client(self, kind: str) -> EngineClient:
        """The client for engines of `kind`. Raises InvalidInput for an unknown kind."""
        client = self._clients.get(kind)
        if client is None:
            known = ", ".join(ENGINE_KINDS)
            raise InvalidInput(f"There is no engine kind {kind!r}; there are {known}.")
        return client

    def close(self) -> None:
        """Close the idle connections."""
        self._http.close()


@cache
def engines(policy: OutboundPolicy) -> EngineRegistry:
    """The registry of this process for a policy: the same one each time, so one pool."""
    return EngineRegistry(policy)


def engine_client(kind: str, policy: OutboundPolicy) -> EngineClient:
    """The client for engines of `kind`. Raises InvalidInput for an unknown kind."""
    return engines(policy).client(kind)
