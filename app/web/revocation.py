"""Telling every process at once that a credential opens nothing any more."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import redis
from flask import current_app, g

from app.core.stream import send_control
from app.web.auth import IdentityCache
from app.web.context import redis_client

log = logging.getLogger(__name__)


def announce_revocation(account_id: int, credential_ids: Sequence[int | None] | None) -> None:
    """End streams and remembered identities of these credentials, in all processes.

    Call it after the commit. None means everything that opens the account; a None among the
    ids stands for Basic, which has no row of its own: a changed password ends that too.
    Without Redis the others still notice within a second, when they look at the row again.
    """
    if credential_ids is not None and not credential_ids:
        return
    cache: IdentityCache = current_app.extensions["weft_identities"]
    cache.clear()
    g.pop("identity", None)
    ids = None if credential_ids is None else list(credential_ids)
    message = {"type": "revoked", "account_id": account_id, "credential_ids": ids}
    try:
        send_control(redis_client(), message)
    except redis.RedisError:
        log.warning("a revocation was not announced: Redis does not answer")
