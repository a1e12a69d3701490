"""The relay's frames: one byte of type, four of stream id (big-endian), then the payload."""

from __future__ import annotations

import struct
from enum import IntEnum

INITIAL_WINDOW_BYTES = 256 * 1024
LARGEST_BODY_PIECE = 64 * 1024

_HEAD = struct.Struct("!BI")
_WINDOW = struct.Struct("!I")


class FrameType(IntEnum):
    """What a frame carries."""

    REQUEST = 1
    REQUEST_BODY = 2
    RESPONSE = 3
    RESPONSE_BODY = 4
    RESPONSE_END = 5
    CANCEL = 6
    WINDOW = 7
    ERROR = 8
    PING = 9
    PONG = 10


class BadFrame(Exception):
    """Not a frame of this protocol."""


def pack(kind: FrameType, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame as bytes."""
    return _HEAD.pack(kind, stream_id) + payload


def unpack(data: bytes) -> tuple[FrameType, int, bytes]:
    """Type, stream id and payload. Raises BadFrame."""
    if len(data) < _HEAD.size:
        raise BadFrame("A frame has at least five bytes.")
    kind, stream_id = _HEAD.unpack_from(data)
    try:
        return FrameType(kind), stream_id, data[_HEAD.size :]
    except ValueError as error:
        raise BadFrame(f"There is no frame type {kind}.") from error


def window_bytes(payload: bytes) -> int:
    """How many more bytes the other side may send. Raises BadFrame."""
    if len(payload) != _WINDOW.size:
        raise BadFrame("A window is four bytes.")
    return int(_WINDOW.unpack(payload)[0])


def pack_window(stream_id: int, count: int) -> bytes:
    """A frame that lets the other side send `count` more bytes."""
    return pack(FrameType.WINDOW, stream_id, _WINDOW.pack(count))
