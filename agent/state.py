"""What the agent keeps on disk between starts: who it is, and its node token."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO


class StateUnusable(Exception):
    """The state folder can't be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this machine is to one hub. `node_token` is None before the first enrolment."""

    hub: str
    client_id: str
    node_id: str | None = None
    node_token: str | None = None
    name: str | None = None
    heartbeat_seconds: float = 30.0


class StateFolder:
    """One folder, one agent: `agent.json` (mode 0600), `models/`, and a lock while it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = folder / "models"
        self._lock: IO[str] | None = None

    def open(self) -> None:
        """Make the folder and lock it. Raises StateUnusable if another agent runs on it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.models.mkdir(exist_ok=True)
            self._lock = (self.folder / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise StateUnusable(
                f"Another agent is running on {self.folder}. Stop it, or give this one its "
                "own folder with --state-dir."
            ) from error
        except OSError as error:
            self.close()
            raise StateUnusable(f"Can't use the state folder {self.folder}: {error}") from error

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def load(self, hub: str) -> Identity:
        """The identity for this hub; a new one, saved at once, where there is none.

        The client id is saved before it is ever sent: an enrolment whose answer was lost
        must not make a second node. A token is never used with another hub's address.
        """
        path = self.folder / "agent.json"
        try:
            stored = json.loads(path.read_text())
            identity = Identity(**stored)
        except FileNotFoundError:
            identity = Identity(hub=hub, client_id=secrets.token_hex(16))
        except (OSError, ValueError, TypeError) as error:
            raise StateUnusable(
                f"{path} can't be read ({error}). Delete it and enrol again with --token."
            ) from error
        if identity.hub != hub:
            identity = replace(identity, hub=hub, node_id=None, node_token=None)
        self.save(identity)
        return identity

    def save(self, identity: Identity) -> None:
        """Write the identity, readable by this user only, whole or not at all."""
        path = self.folder / "agent.json"
        temporary = path.with_suffix(".tmp")
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(identity), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
