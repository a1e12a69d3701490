"""Short HTTP questions to an engine, on the standard library alone."""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

ANSWER_BYTES = 4_000_000


class EngineUnreachable(Exception):
    """The engine didn't answer; the message says how."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An engine's answer to one question."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body as JSON; None where it isn't, or where the answer is an error."""
        if self.status != 200:
            return None
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def open_connection(base_url: str, *, timeout: float) -> HTTPConnection:
    """A connection to the engine, not yet connected."""
    url = urlsplit(base_url)
    host = url.hostname or "127.0.0.1"
    if url.scheme == "https":
        context = ssl.create_default_context()
        return HTTPSConnection(host, url.port or 443, timeout=timeout, context=context)
    return HTTPConnection(host, url.port or 80, timeout=timeout)


def path_on(base_url: str, path: str) -> str:
    """The request path for an engine that may live under a prefix."""
    return urlsplit(base_url).path.rstrip("/") + path


def fetch(
    base_url: str, path: str, *, api_key: str | None = None, timeout: float = 5.0
) -> Answer:
    """GET one thing. Raises EngineUnreachable."""
    headers = {"Accept": "application/json, text/plain"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    connection = open_connection(base_url, timeout=timeout)
    try:
        connection.request("GET", path_on(base_url, path), headers=headers)
        response = connection.getresponse()
        return Answer(response.status, response.read(ANSWER_BYTES))
    except (OSError, HTTPException) as error:
        reason = str(error) or type(error).__name__
        raise EngineUnreachable(f"{base_url} doesn't answer: {reason}") from error
    finally:
        connection.close()
