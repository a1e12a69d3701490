"""The server's side of a WebSocket (RFC 6455), as far as the relay needs it: binary messages.

A library's general machine costs several times as much for each message, and every token is
one (docs/adr/0004). No extensions, no text, and everything that comes is bounded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any, Final

GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

CONTINUATION: Final = 0
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
UNSUPPORTED: Final = 1003
POLICY: Final = 1008
TOO_BIG: Final = 1009

_FIN: Final = 0x80
_RESERVED: Final = 0x70
_MASKED: Final = 0x80
_MAX_CONTROL_BYTES: Final = 125


class BadWebSocket(Exception):
    """The other side breaks the protocol; `code` goes into the close frame."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def handshake(environ: Mapping[str, Any]) -> bytes:
    """The answer that turns this request into a WebSocket. Raises BadWebSocket."""
    key = environ.get("HTTP_SEC_WEBSOCKET_KEY", "").strip()
    upgrade = environ.get("HTTP_UPGRADE", "").lower()
    connection = {
        word.strip() for word in environ.get("HTTP_CONNECTION", "").lower().split(",")
    }
    if upgrade != "websocket" or "upgrade" not in connection or not _is_key(key):
        raise BadWebSocket(PROTOCOL_ERROR, "This address speaks WebSocket only.")
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13":
        raise BadWebSocket(PROTOCOL_ERROR, "Only version 13 of WebSocket is spoken here.")
    digest = hashlib.sha1(key.encode() + GUID, usedforsecurity=False).digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )


def pack_message(payload: bytes, opcode: int = BINARY) -> bytes:
    """One unmasked message, as servers send them."""
    length = len(payload)
    if length < 126:
        return bytes((_FIN | opcode, length)) + payload
    if length < 0x10000:
        return bytes((_FIN | opcode, 126)) + length.to_bytes(2, "big") + payload
    return bytes((_FIN | opcode, 127)) + length.to_bytes(8, "big") + payload


def pack_close(code: int, reason: str) -> bytes:
    """A close frame."""
    return pack_message(code.to_bytes(2, "big") + reason.encode()[:120], CLOSE)


class MessageReader:
    """Cuts the bytes of a connection into messages of at most `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._parts: list[bytes] | None = None
        self._parts_bytes = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The messages (opcode, payload) that are whole now. Raises BadWebSocket."""
        buffer = self._buffer
        buffer += data
        messages: list[tuple[int, bytes]] = []
        start, end = 0, len(buffer)
        while end - start >= 2:
            first, second = buffer[start], buffer[start + 1]
            length, head = second & 0x7F, start + 2
            if length >= 126:
                wide = 2 if length == 126 else 8
                if end - head < wide:
                    break
                length = int.from_bytes(buffer[head : head + wide], "big")
                head += wide
            self._check(first, second, length)
            body = head + 4
            if end - body < length:
                break
            payload = _unmask(buffer[body : body + length], buffer[head:body])
            start = body + length
            if first == _FIN | BINARY and self._parts is None:
                messages.append((BINARY, payload))
            else:
                self._take(first, payload, messages)
        del buffer[:start]
        return messages

    def _check(self, first: int, second: int, length: int) -> None:
        opcode = first & 0x0F
        if first & _RESERVED or not second & _MASKED:
            raise BadWebSocket(PROTOCOL_ERROR, "A frame breaks the protocol.")
        if opcode >= CLOSE and (length > _MAX_CONTROL_BYTES or not first & _FIN):
            raise BadWebSocket(PROTOCOL_ERROR, "A control frame is too long.")
        if opcode not in (CONTINUATION, BINARY, CLOSE, PING, PONG):
            raise BadWebSocket(UNSUPPORTED, "Only binary messages are spoken here.")
        if length + self._parts_bytes > self._max_bytes:
            raise BadWebSocket(TOO_BIG, "A message is too long.")

    def _take(self, first: int, payload: bytes, messages: list[tuple[int, bytes]]) -> None:
        """A control frame, or a part of a message."""
        opcode = first & 0x0F
        if opcode >= CLOSE:
            messages.append((opcode, payload))
            return
        if (opcode == CONTINUATION) != (self._parts is not None):
            raise BadWebSocket(PROTOCOL_ERROR, "A message's parts are out of order.")
        parts = self._parts = self._parts or []
        if not payload and not first & _FIN:
            raise BadWebSocket(PROTOCOL_ERROR, "A part of a message is empty.")
        parts.append(payload)
        self._parts_bytes += len(payload)
        if first & _FIN:
            self._parts, self._parts_bytes = None, 0
            messages.append((BINARY, b"".join(parts)))


def _unmask(data: bytearray, mask: bytearray) -> bytes:
    length = len(data)
    # As numbers: one operation of C for the whole payload.
    key = int.from_bytes((bytes(mask) * (length // 4 + 1))[:length], "little")
    return (int.from_bytes(data, "little") ^ key).to_bytes(length, "little")


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False
