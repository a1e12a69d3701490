"""An engine that somebody else started: only watched, never stopped."""

from __future__ import annotations

from typing import Any

from agent.config import Attachment
from agent.engine_http import EngineUnreachable
from agent.launchers.base import EngineAddress, EngineLoad, Health, ReplicaState
from agent.launchers.face import EngineFace
from agent.launchers.facts import detect_kind


class AttachLauncher:
    """Serves a model through an engine at a given address."""

    def __init__(
        self, attachment: Attachment, *, is_direct: bool, concurrency: int | None = None
    ) -> None:
        self.model_name = attachment.model_name
        self._attachment = attachment
        self._face = EngineFace(
            kind=attachment.engine or "openai",
            model_name=attachment.model_name,
            served_name=attachment.served_name,
            api_key=attachment.api_key,
            public_url=attachment.public_url,
            is_direct=is_direct,
            concurrency=concurrency,
        )
        self._is_kind_known = attachment.engine is not None

    @property
    def kind(self) -> str:
        """The kind that was given, or found."""
        return self._face.kind

    def start(self) -> None:
        """Begin to look at the engine."""
        self._face.reset()
        self._face.base_url = self._attachment.url

    def poll(self) -> Health:
        """How the engine is. One that doesn't answer is a failure: nobody here starts it."""
        if not self._is_kind_known:
            try:
                self._face.kind = detect_kind(self._attachment.url, self._attachment.api_key)
            except EngineUnreachable as error:
                return Health(ReplicaState.FAILED, str(error))
            self._is_kind_known = True
        health = self._face.look()
        if health.state is ReplicaState.STARTING:
            return Health(ReplicaState.FAILED, health.error)
        return health

    def stop(self, *, seconds: float) -> None:
        """Let go of it; the engine goes on."""
        self._face.base_url = None

    def describe(self, health: Health) -> dict[str, Any]:
        """The replica for the hub."""
        return self._face.describe(health)

    def load(self) -> EngineLoad:
        """How busy the engine is."""
        return self._face.load()

    def address(self) -> EngineAddress | None:
        """Where it listens."""
        return self._face.address()
