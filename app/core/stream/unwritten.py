"""The end of a run that no worker ever wrote: stored by whoever ended it."""

from __future__ import annotations

import json
from typing import Any

from redis import Redis, ResponseError

from app.core.stream.control import CONTROL_CHANNEL
from app.core.stream.events import END, KEPT_AFTER_END_SECONDS, encode_value, stream_key


def end_unwritten(redis: Redis, run_id: str, value: dict[str, Any]) -> None:
    """Store the end as the run's only event, and wake its readers in every process.

    A run that has events already keeps them. Raises redis.RedisError.
    """
    key = stream_key(run_id)
    with redis.pipeline(transaction=False) as pipe:
        pipe.xadd(key, {"f": 1, "k": END, "v": encode_value(END, value)}, id="0-1")
        pipe.expire(key, KEPT_AFTER_END_SECONDS)
        pipe.publish(CONTROL_CHANNEL, json.dumps({"type": "look", "run_id": run_id}))
        stored, *rest = pipe.execute(raise_on_error=False)
    is_repeat = isinstance(stored, ResponseError) and "equal or smaller" in str(stored)
    for reply in rest if is_repeat else (stored, *rest):
        if isinstance(reply, Exception):
            raise reply
