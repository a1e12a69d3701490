"""The HTTP side of an engine, the same for all launchers."""

from __future__ import annotations

from typing import Any

from agent.engine_http import EngineUnreachable
from agent.launchers.base import (
    EngineAddress,
    EngineFacts,
    EngineLoad,
    Health,
    ReplicaState,
)
from agent.launchers.facts import is_healthy, read_facts, read_load

# A busy engine may miss one look; after this many in a row it counts as gone.
STRIKES = 3


class EngineFace:
    """One engine's address, and what was learned there."""

    def __init__(
        self,
        *,
        kind: str,
        model_name: str,
        served_name: str | None = None,
        api_key: str | None = None,
        public_url: str | None = None,
        is_direct: bool = False,
        concurrency: int | None = None,
    ) -> None:
        self.kind = kind
        self.model_name = model_name
        self.api_key = api_key
        self.base_url: str | None = None
        self._served_name = served_name
        self._public_url = public_url
        self._is_direct = is_direct
        self._concurrency = concurrency
        self._facts: EngineFacts | None = None
        self._strikes = 0

    def reset(self) -> None:
        """Forget what the engine said before it went."""
        self._facts = None
        self._strikes = 0

    def look(self) -> Health:
        """Ask whether it is well; when it is for the first time, also what it serves."""
        base_url = self.base_url
        if base_url is None:
            return Health(ReplicaState.STARTING)
        try:
            trouble = is_healthy(self.kind, base_url, self.api_key)
            if trouble is None and self._facts is None:
                self._facts = read_facts(
                    self.kind,
                    base_url,
                    api_key=self.api_key,
                    model_name=self.model_name,
                    served_name=self._served_name,
                )
        except EngineUnreachable as error:
            trouble = str(error)
        if trouble is None:
            self._strikes = 0
            return Health(ReplicaState.READY)
        self._strikes += 1
        if self._facts is not None and self._strikes < STRIKES:
            return Health(ReplicaState.READY, trouble)
        state = ReplicaState.STARTING if self._facts is None else ReplicaState.FAILED
        return Health(state, trouble)

    def load(self) -> EngineLoad:
        """How busy the engine is."""
        base_url = self.base_url
        if base_url is None or self._facts is None:
            return EngineLoad()
        return read_load(self.kind, base_url, api_key=self.api_key)

    def address(self) -> EngineAddress | None:
        """Where it listens on this machine."""
        base_url = self.base_url
        return EngineAddress(base_url, self.api_key) if base_url else None

    def describe(self, health: Health) -> dict[str, Any]:
        """The replica for the hub. The key leaves the machine only where the hub itself calls."""
        facts = self._facts
        url = (self._public_url or self.base_url) if self._is_direct else None
        return {
            "model_name": self.model_name,
            "served_name": facts.served_name if facts else self._served_name or self.model_name,
            "engine": self.kind,
            "state": str(health.state),
            "endpoint_url": url,
            "concurrency": self._concurrency or (facts.concurrency if facts else 1),
            "context_tokens": facts.context_tokens if facts else None,
            "engine_version": facts.version if facts else None,
            "error": health.error if health.state is ReplicaState.FAILED else None,
            "api_key": self.api_key if self._is_direct else None,
        }
