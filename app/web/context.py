"""What a request finds around it: settings, Redis, the address it came from."""

from __future__ import annotations

import redis
from flask import current_app, request

from app.config import Settings
from app.core.services.signin import SigninPolicy


def settings() -> Settings:
    """The settings this app was made with."""
    found: Settings = current_app.extensions["weft_settings"]
    return found


def redis_client() -> redis.Redis:
    """This process's Redis client."""
    found: redis.Redis = current_app.extensions["weft_redis"]
    return found


def remote_address() -> str:
    """The peer's address; behind trusted proxies, the one they vouch for."""
    return request.remote_addr or "unknown"


def signin_policy() -> SigninPolicy:
    """How passwords are checked here."""
    chosen = settings()
    return SigninPolicy(chosen.argon2_profile, chosen.signin_limit_per_minute)


def base_url() -> str:
    """The hub's address as its users see it, without a trailing slash."""
    return settings().public_url or request.host_url.rstrip("/")
