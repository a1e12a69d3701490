"""The relay's frames: one byte of type, four of stream id (big-endian), then the payload."""

from __future__ import annotations

import struct
from typing import Final

# Plain numbers: they are compared for every token that passes.
REQUEST: Final = 1
REQUEST_BODY: Final = 2
RESPONSE: Final = 3
RESPONSE_BODY: Final = 4
RESPONSE_END: Final = 5
CANCEL: Final = 6
WINDOW: Final = 7
ERROR: Final = 8
PING: Final = 9
PONG: Final = 10
LAST_TYPE: Final = PONG

# What an agent may send of an answer before it is told that there is room for more.
WINDOW_BYTES: Final = 256 * 1024
MAX_FRAME_BYTES: Final = 1_000_000
MAX_STREAM_ID: Final = 2**32 - 1
BODY_PIECE_BYTES: Final = 64 * 1024

HEAD = struct.Struct("!BI")
_COUNT = struct.Struct("!I")


def pack(kind: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame as bytes."""
    return HEAD.pack(kind, stream_id) + payload


def pack_window(stream_id: int, count: int) -> bytes:
    """A frame that lets the agent send `count` more bytes."""
    return HEAD.pack(WINDOW, stream_id) + _COUNT.pack(count)
