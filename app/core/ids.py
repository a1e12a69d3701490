"""Ids and secrets: made here, spelled here."""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import time

_UUID_SHAPE = re.compile(
    r"^([0-9a-f]{8})-?([0-9a-f]{4})-?8([0-9a-f]{3})-?8([0-9a-f]{3})-?([0-9a-f]{6})000000$"
)
_UID_SHAPE = re.compile(r"^[0-9a-f]{24}$")
_CLIENT_ID_SHAPE = re.compile(r"^(?:0x)?([0-9a-f]{32})$")
_LETTERS_AND_DIGITS = string.ascii_letters + string.digits


def new_uid() -> str:
    """A fresh 96-bit id: seconds since 1970 and 64 random bits, as 24 hex digits."""
    return f"{int(time.time()) & 0xFFFFFFFF:08x}{secrets.token_hex(8)}"


def uid_as_uuid(uid: str) -> str:
    """The same id spelled as a UUID (version 8, RFC 9562), losing nothing."""
    return f"{uid[:8]}-{uid[8:12]}-8{uid[12:15]}-8{uid[15:18]}-{uid[18:24]}000000"


def uid_from_uuid(text: str) -> str | None:
    """The id in a UUID that `uid_as_uuid` spelled; None for any other text."""
    match = _UUID_SHAPE.match(text.lower())
    return "".join(match.groups()) if match else None


def uid_from_object_id(text: str) -> str | None:
    """The id in 24 hex digits of any case; None for any other text."""
    lowered = text.lower()
    return lowered if _UID_SHAPE.match(lowered) else None


def parse_client_id(text: str) -> str | None:
    """A node's public id, 32 lower-case hex digits, from text with optional `0x`."""
    match = _CLIENT_ID_SHAPE.match(text.strip().lower())
    return match.group(1) if match else None


def new_client_id() -> str:
    """A fresh public id for a node: 16 random bytes in hex."""
    return secrets.token_hex(16)


def new_secret(prefix: str, length: int = 48) -> str:
    """A random secret: `prefix` and `length` letters and digits (about 5.95 bits each)."""
    return prefix + "".join(secrets.choice(_LETTERS_AND_DIGITS) for _ in range(length))


def hash_secret(secret: str) -> str:
    """What is stored of a random secret. Unsalted is right: it has over 128 bits of entropy."""
    return hashlib.sha256(secret.encode()).hexdigest()


def mask_secret(secret: str) -> str:
    """`sk-1a2b…3w4x`: enough to recognise a secret, too little to use it."""
    head = secret[:7] if secret.startswith("sk-") else secret[:4]
    return f"{head}…{secret[-4:]}"
