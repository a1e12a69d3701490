"""Password hashes: argon2id, off the event loop."""

from __future__ import annotations

import functools
import os
import threading

import argon2
from argon2 import profiles

from app.core.domain.errors import InvalidInput
from app.core.offload import run_off_loop

MIN_LENGTH = 6
MAX_LENGTH = 256

# Each hash takes 64 MB and several threads: many at once would starve everything else.
_slots = threading.BoundedSemaphore(max(1, (os.cpu_count() or 2) // 2))


@functools.cache
def _hasher(profile: str) -> argon2.PasswordHasher:
    if profile == "cheapest":
        return argon2.PasswordHasher.from_parameters(profiles.CHEAPEST)
    return argon2.PasswordHasher()


@functools.cache
def _hash_of_nothing(profile: str) -> str:
    return _hasher(profile).hash("no account has this password")


def check_length(password: str, *, minimum: int = MIN_LENGTH) -> None:
    """Refuse a password that is too short, or long enough to be an attack on the hash.

    Raises InvalidInput.
    """
    if len(password) < minimum:
        raise InvalidInput(f"Use at least {minimum} characters.", field="password")
    if len(password) > MAX_LENGTH:
        raise InvalidInput(f"Use at most {MAX_LENGTH} characters.", field="password")


def hash_password(password: str, *, profile: str) -> str:
    """The hash to store. Raises InvalidInput for a password out of bounds."""
    check_length(password)
    with _slots:
        return run_off_loop(_hasher(profile).hash, password)


def verify_password(password_hash: str | None, password: str, *, profile: str) -> bool:
    """Whether the password fits. Without an account it takes as long and says no."""
    if len(password) > MAX_LENGTH:
        return False
    with _slots:
        return run_off_loop(_verify, password_hash, password, profile)


def _verify(password_hash: str | None, password: str, profile: str) -> bool:
    try:
        _hasher(profile).verify(password_hash or _hash_of_nothing(profile), password)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False
    return password_hash is not None
