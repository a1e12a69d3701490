"""The requests that workers send to the relay: HTTP/1.1, read strictly and quickly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

MAX_HEAD_BYTES: Final = 32 * 1024
# Agents take no more.
MAX_BODY_BYTES: Final = 64 * 1024 * 1024

_OWN: Final = "x-weft-"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# What concerns this connection alone, and credentials, which are no engine's.
_DROPPED = frozenset(
    {
        "host", "connection", "keep-alive", "proxy-connection", "proxy-authorization", "te",
        "trailer", "upgrade", "content-length", "accept-encoding", "expect", "cookie",
        "authorization",
    }
)  # fmt: skip


class BadRequest(Exception):
    """Not a request that the relay takes; `status` says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class RelayRequest:
    """One request's head: for which node and model, and what the engine is to get."""

    method: str
    path: str
    headers: dict[str, str]
    length: int
    node: str
    model_name: str
    key: str


def parse_head(data: bytes) -> RelayRequest:
    """The head of a request, without the blank line at its end. Raises BadRequest."""
    first, *lines = data.decode("latin-1").split("\r\n")
    method, path = _first_line(first)
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name) or _BAD_VALUE.search(value):
            raise BadRequest(400, "A header is malformed.")
        name, value = name.lower(), value.strip(" \t")
        if name in headers:
            if name == "content-length" or name.startswith(_OWN):
                raise BadRequest(400, f"{name} is there twice.")
            value = f"{headers[name]}, {value}"
        headers[name] = value
    return RelayRequest(
        method=method,
        path=path,
        headers={
            name: value
            for name, value in headers.items()
            if name not in _DROPPED and not name.startswith(_OWN)
        },
        length=_body_length(headers),
        node=headers.get("x-weft-node", ""),
        model_name=unquote(headers.get("x-weft-model", "")),
        key=headers.get("x-weft-key", ""),
    )


def _first_line(line: str) -> tuple[str, str]:
    parts = line.split(" ")
    if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]) or not parts[1].startswith("/"):
        raise BadRequest(400, "The request's first line is malformed.")
    if parts[2] != "HTTP/1.1":
        raise BadRequest(505, "The relay speaks HTTP/1.1.")
    return parts[0], parts[1]


def _body_length(headers: dict[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise BadRequest(411, "Send the body with its length.")
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise BadRequest(400, "The body's length is no number.")
    length = int(text)
    if length > MAX_BODY_BYTES:
        raise BadRequest(413, "The body is too long for the relay.")
    return length
