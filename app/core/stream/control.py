"""Messages that every process hears: revoked credentials, cancelled runs, new readers.

`{"type": "revoked", "account_id": …, "credential_id": …}`
`{"type": "cancel", "run_id": …}`
`{"type": "read", "run_id": …, "channel": …}`: another web process reads this run too.
`{"type": "look", "run_id": …}`: this run's stream has something that nobody publishes.
Publishing is fire and forget: whoever must not miss one also looks at the database.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, Final

from redis import Redis

from app.core.stream.wire import Listener

CONTROL_CHANNEL: Final = "weft:control"

ControlCallback = Callable[[dict[str, Any]], None]

log = logging.getLogger(__name__)


def send_control(redis: Redis, message: dict[str, Any]) -> int:
    """Tell every process; gives how many heard it. Raises redis.RedisError."""
    return int(redis.publish(CONTROL_CHANNEL, json.dumps(message)))  # type: ignore[arg-type]


class ControlListener:
    """Hears control messages in a process that has no `StreamHub`: the worker."""

    def __init__(self, redis_url: str) -> None:
        self._callbacks: list[ControlCallback] = []
        self._listener = Listener(redis_url, [CONTROL_CHANNEL], self._heard)

    def on_control(self, callback: ControlCallback) -> None:
        """Call this with each message. It must not block: it runs in the listener."""
        self._callbacks.append(callback)

    def start(self) -> None:
        """Listen, reconnecting for as long as it takes."""
        self._listener.start()

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()

    def _heard(self, _channel: bytes, payload: bytes) -> None:
        deliver_control(self._callbacks, payload)


def deliver_control(callbacks: list[ControlCallback], payload: bytes) -> None:
    """Hand one message to all callbacks; a message that is not an object is dropped."""
    try:
        message = json.loads(payload)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        log.warning("Dropped a control message that is not a JSON object")
        return
    for callback in callbacks:
        try:
            callback(message)
        except Exception:
            log.exception("A control callback failed on %s", message.get("type"))
