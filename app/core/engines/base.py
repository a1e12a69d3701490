"""What every engine client offers, and where it reaches its engine."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

from app.core.domain.runs import Chunk, RunRequest


@dataclass(frozen=True, slots=True)
class EngineTarget:
    """One engine on one node.

    `base_url` is http(s)://host:port without `/v1`. `relay` is set for a node behind NAT:
    the address (`host:port` or `unix:/path`) of the web process that holds the agent's
    connection; the same HTTP then goes there, with `relay_headers` added.
    """

    base_url: str
    served_name: str
    api_key: str | None = None
    relay: str | None = None
    relay_headers: tuple[tuple[str, str], ...] = ()
    connect_timeout_seconds: float = 5.0
    first_chunk_timeout_seconds: float = 60.0
    idle_timeout_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """What an engine says of itself; None where it does not tell."""

    models: tuple[str, ...]
    max_concurrent_requests: int | None = None
    context_tokens: int | None = None
    version: str | None = None


class EngineClient(Protocol):
    """A client of one kind of engine. Stateless apart from its connection pool."""

    kind: str

    def generate(
        self, target: EngineTarget, request: RunRequest
    ) -> Generator[Chunk, None, None]:
        """Stream the answer; the last chunk alone has a finish reason, and usage if told.

        Raises EngineError before or between chunks, and before the first one PromptTooLong or
        InvalidInput for what no engine of this kind takes. Closing the generator closes the
        connection, which frees the engine's slot.
        """
        ...

    def check(self, target: EngineTarget) -> EngineStatus:
        """Ask the engine whether it is well and what it serves. Raises EngineError."""
        ...

    def probe(self, target: EngineTarget) -> None:
        """Have one token generated: the engine does not only listen, it answers.

        Costs a slot for a moment, so it is for registration, not for every heartbeat.
        Raises EngineError.
        """
        ...
