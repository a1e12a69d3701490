"""Limits on how often an address may do something that costs us or others."""

from __future__ import annotations

import logging

import redis

from app.core.domain.errors import RateLimited
from app.web.context import redis_client, remote_address

log = logging.getLogger(__name__)

WINDOW_SECONDS = 60


def limit_by_address(what: str, per_minute: int) -> None:
    """Count one more from this address. Raises RateLimited above `per_minute`."""
    key = f"weft:rate:{what}:{remote_address()}"
    try:
        with redis_client().pipeline(transaction=False) as pipe:
            pipe.incr(key)
            pipe.expire(key, WINDOW_SECONDS, nx=True)
            pipe.ttl(key)
            count, _, left = pipe.execute()
    except redis.RedisError:
        log.warning("a limit is not enforced: Redis does not answer")
        return
    if count > per_minute:
        raise RateLimited(
            "Too many requests. Wait a minute and try again.", retry_after_seconds=max(left, 1)
        )
