"""What a worker process works with, built once at its start."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass, field
from urllib.parse import quote

import redis

from app.config import Settings
from app.core.database import Sessions, make_engine, make_sessions
from app.core.engines import pump
from app.core.engines.base import EngineTarget
from app.core.outbound import OutboundPolicy
from app.core.queue import RunQueue
from app.core.sealing import Sealer
from app.core.services.placement import Candidate
from app.core.services.relay import relay_key
from app.core.stream import StreamWriter
from worker.ledger import Ledger

# Where the hub's relay stands in for the engine, no real host is named.
RELAYED_URL = "http://engine.relay"


@dataclass(slots=True)
class WorkerContext:
    """Everything that tasks and duties share."""

    settings: Settings
    name: str
    sessions: Sessions
    store: redis.Redis
    writer: StreamWriter
    queue: RunQueue
    policy: OutboundPolicy
    ledger: Ledger
    sealer: Sealer
    closers: list[object] = field(default_factory=list)

    def target(self, candidate: Candidate) -> EngineTarget:
        """Where a replica's engine is reached."""
        sealed = candidate.sealed_api_key
        is_relayed = candidate.endpoint_url is None
        return EngineTarget(
            base_url=candidate.endpoint_url or RELAYED_URL,
            served_name=candidate.served_name,
            api_key=self.sealer.open(sealed) if sealed else None,
            relay=candidate.relay if is_relayed else None,
            relay_headers=self._relay_headers(candidate) if is_relayed else (),
            first_chunk_timeout_seconds=self.settings.first_token_timeout_seconds,
            idle_timeout_seconds=self.settings.idle_timeout_seconds,
        )

    def _relay_headers(self, candidate: Candidate) -> tuple[tuple[str, str], ...]:
        key = relay_key(self.settings.secret_key, candidate.client_id)
        return (
            ("X-Weft-Node", candidate.client_id),
            ("X-Weft-Model", quote(candidate.model_name)),
            ("X-Weft-Key", key),
        )


def build_context(settings: Settings) -> WorkerContext:
    """The context of this process."""
    # Process ids come again: a name must never be that of a dead worker, or its leases live on.
    # Pieces gather where they are read, so the writer has nothing to wait for.
    pump.gather(settings.stream_flush_ms / 1000)
    name = f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(4)}"
    sessions = make_sessions(make_engine(settings.database_url))
    store = redis.Redis.from_url(settings.redis_url)
    return WorkerContext(
        settings=settings,
        name=name,
        sessions=sessions,
        store=store,
        writer=StreamWriter(settings.redis_url),
        queue=RunQueue(store),
        policy=OutboundPolicy(settings.allowed_node_networks),
        ledger=Ledger(
            sessions,
            worker=name,
            lease_seconds=settings.run_lease_seconds,
            offline_after_seconds=settings.offline_after_seconds,
        ),
        sealer=Sealer(settings.secret_key),
    )
