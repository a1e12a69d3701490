"""Signing in with a password, with a limit on failures shared by all doors."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import redis
from sqlalchemy.orm import Session

from app.core.domain.errors import RateLimited, Unauthenticated
from app.core.models import Account
from app.core.services import accounts, passwords

log = logging.getLogger(__name__)

WINDOW_SECONDS = 60
# One address trying many accounts is an attack too, only a slower one per account.
_ADDRESS_FACTOR = 10


@dataclass(frozen=True, slots=True)
class SigninPolicy:
    """How passwords are hashed and how many failures a minute are borne."""

    hash_profile: str
    failures_per_minute: int


def check_password(
    session: Session,
    store: redis.Redis,
    *,
    login: str,
    password: str,
    address: str,
    policy: SigninPolicy,
    now: datetime,
) -> Account:
    """The account that this e-mail or user name and password open.

    Unknown names take as long as wrong passwords. Raises Unauthenticated, and RateLimited
    after too many failures of this account from this address.
    """
    limiter = FailureLimiter(store, policy.failures_per_minute)
    limiter.check(login, address)
    account = accounts.find_by_login(session, login)
    password_hash = account.password_hash if account is not None else None
    fits = passwords.verify_password(password_hash, password, profile=policy.hash_profile)
    if account is None or not fits or not account.is_active:
        limiter.count_failure(login, address)
        raise Unauthenticated("Incorrect email or password")
    return account


class FailureLimiter:
    """Counts failures in Redis, in windows of a minute that begin at the first failure."""

    def __init__(self, store: redis.Redis, per_minute: int) -> None:
        self._store = store
        self._per_minute = per_minute

    def check(self, login: str, address: str) -> None:
        """Raise RateLimited when this pair, or this address, has failed too often."""
        pair, single = self._keys(login, address)
        try:
            counts: Any = self._store.mget([pair, single])
            if int(counts[0] or 0) < self._per_minute and (
                int(counts[1] or 0) < self._per_minute * _ADDRESS_FACTOR
            ):
                return
            waits: Any = [self._store.ttl(pair), self._store.ttl(single)]
        except redis.RedisError:
            # Without Redis nobody could be signed in if this refused; argon2 still slows a guesser.
            log.warning("sign-in limit is not enforced: Redis does not answer")
            return
        raise RateLimited(
            "Too many failed sign-ins. Wait a minute and try again.",
            retry_after_seconds=max(1, *waits),
        )

    def count_failure(self, login: str, address: str) -> None:
        """Remember one failure."""
        try:
            with self._store.pipeline(transaction=False) as pipe:
                for key in self._keys(login, address):
                    pipe.incr(key)
                    pipe.expire(key, WINDOW_SECONDS, nx=True)
                pipe.execute()
        except redis.RedisError:
            log.warning("a failed sign-in was not counted: Redis does not answer")

    @staticmethod
    def _keys(login: str, address: str) -> tuple[str, str]:
        # Names are hashed: Redis need not know who signs in.
        digest = hashlib.sha256(login.strip().lower().encode()).hexdigest()[:24]
        return f"weft:signin:{digest}:{address}", f"weft:signin:{address}"


class VerifiedPasswords:
    """Remembers for a short while which Basic passwords fit, so that argon2 runs once.

    Keys are keyed hashes of name and password together; an entry holds only while the
    account's stored hash is the one that was verified, so a new password ends it at once.
    """

    def __init__(self, secret_key: str, *, seconds: float = 60, size: int = 10_000) -> None:
        self._key = hashlib.sha256(b"basic:" + secret_key.encode()).digest()
        self._seconds = seconds
        self._size = size
        self._entries: dict[bytes, tuple[float, int, str]] = {}

    def find(self, login: str, password: str) -> tuple[int, str] | None:
        """Account id and password hash that this pair was verified against."""
        entry = self._entries.get(self._digest(login, password))
        if entry is None or entry[0] < time.monotonic():
            return None
        return entry[1], entry[2]

    def remember(self, login: str, password: str, account: Account) -> None:
        """Keep a pair that has just been verified."""
        if len(self._entries) >= self._size:
            self._entries.clear()
        self._entries[self._digest(login, password)] = (
            time.monotonic() + self._seconds, account.id, account.password_hash or "",
        )  # fmt: skip

    def _digest(self, login: str, password: str) -> bytes:
        text = f"{len(login)}:{login}:{password}".encode()
        return hashlib.blake2b(text, key=self._key, digest_size=32).digest()
