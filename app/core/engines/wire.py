"""How all engine clients talk HTTP: one way to ask, one way to stream, one set of errors."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import islice
from typing import Any

from pydantic_core import from_json

from app.core.domain.errors import EngineError, InvalidInput
from app.core.engines import failures
from app.core.engines.base import EngineTarget
from app.core.engines.http import HttpClient, HttpFailure, Request, Response
from app.core.engines.sse import DONE, payloads
from app.core.outbound import AddressNotAllowed
from app.core.urls import Url, parse_url

MAX_ERROR_BYTES = 64 * 1024
MAX_JSON_BYTES = 4 * 1024 * 1024
CHECK_TIMEOUT_SECONDS = 15.0

_END_OF_BODY_SECONDS = 1.0
_LINES_AFTER_DONE = 16


class EventStream:
    """The JSON objects of one streamed answer, in order.

    The clock of the target runs between payloads: keep-alive comments do not reset it, so an
    engine that only says "still here" counts as silent. `done` tells whether the engine ended
    the answer itself, with `[DONE]`.
    """

    def __init__(self, response: Response, target: EngineTarget) -> None:
        self._response = response
        self._lines = response.lines()
        self._idle_seconds = target.idle_timeout_seconds
        self.done = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Each payload. Raises EngineError for what is no JSON object, or says `error`."""
        response = self._response
        for payload in payloads(self._lines):
            if payload == DONE:
                self.done = True
                self.drain()
                return
            yield _event(payload)
            # After the consumer came back: its own slowness must not look like the engine's.
            response.extend(self._idle_seconds)

    def hurry(self, seconds: float) -> None:
        """The answer is complete; what may still follow gets this long and no longer."""
        self._idle_seconds = seconds

    def drain(self) -> None:
        """Read on to the end of the body, which is due now, so that the connection is kept."""
        self._response.extend(_END_OF_BODY_SECONDS)
        with suppress(HttpFailure):
            for _ in islice(self._lines, _LINES_AFTER_DONE):
                pass


class Wire:
    """Requests to engines over one pool. Turns every failure of HTTP into an EngineError."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    @contextmanager
    def stream(
        self, target: EngineTarget, path: str, body: dict[str, Any]
    ) -> Generator[EventStream, None, None]:
        """POST `body` and give its events; leaving closes the connection, if it is not done.

        Raises EngineError (EngineRejected), PromptTooLong.
        """
        with self.exchange(target, "POST", path, body) as response:
            if response.content_type != "text/event-stream":
                raise _not_a_stream(response)
            yield EventStream(response, target)

    def get_json(self, target: EngineTarget, path: str) -> dict[str, Any]:
        """GET a JSON object. Raises EngineError."""
        with self.exchange(target, "GET", path) as response:
            return parse_object(response.read(MAX_JSON_BYTES))

    def get_ok(self, target: EngineTarget, path: str) -> None:
        """GET something that only has to answer well. Raises EngineError."""
        with self.exchange(target, "GET", path) as response:
            response.read(MAX_JSON_BYTES)

    @contextmanager
    def exchange(
        self, target: EngineTarget, method: str, path: str, body: dict[str, Any] | None = None
    ) -> Generator[Response, None, None]:
        """Send a request and give the response, if its status is 2xx. Raises EngineError."""
        request = self._request(target, method, path, body)
        try:
            response = self._client.send(request)
            try:
                if not 200 <= response.status < 300:
                    said = response.read(MAX_ERROR_BYTES)
                    later = response.headers.get("retry-after", "")
                    raise failures.from_status(response.status, said, retry_after=later)
                yield response
            finally:
                response.close()
        except AddressNotAllowed as error:
            raise EngineError(error.message, reason="engine_refused") from error
        except HttpFailure as error:
            raise failures.from_wire(error) from error

    def _request(
        self, target: EngineTarget, method: str, path: str, body: dict[str, Any] | None
    ) -> Request:
        is_stream = body is not None
        headers = [*target.relay_headers]
        headers.append(("Accept", "text/event-stream" if is_stream else "application/json"))
        if target.api_key:
            headers.append(("Authorization", f"Bearer {target.api_key}"))
        if is_stream:
            headers.append(("Content-Type", "application/json"))
        return Request(
            url=engine_url(target, path),
            method=method,
            headers=tuple(headers),
            body=_dump(body) if is_stream else None,
            via=target.relay,
            connect_timeout_seconds=target.connect_timeout_seconds,
            response_timeout_seconds=(
                target.first_chunk_timeout_seconds if is_stream else CHECK_TIMEOUT_SECONDS
            ),
        )


def engine_url(target: EngineTarget, path: str) -> Url:
    """The URL of `path` at an engine. Raises EngineError for a base URL that is none."""
    try:
        return _parsed(target.base_url.rstrip("/") + path)
    except InvalidInput as error:
        raise EngineError(error.message, reason="engine_refused") from error


# The same few addresses again and again; taking one apart costs as much as sending to it.
_parsed = lru_cache(1024)(parse_url)


def parse_object(data: bytes) -> dict[str, Any]:
    """A JSON object. Raises EngineError for anything else."""
    try:
        value = from_json(data)
    except ValueError as error:
        raise failures.broke("The engine sent something that is no JSON.") from error
    if not isinstance(value, dict):
        raise failures.broke("The engine sent JSON that is no object.")
    return value


def _event(payload: bytes) -> dict[str, Any]:
    value = parse_object(payload)
    if value.get("error") is not None or value.get("object") == "error":
        raise failures.from_error_object(value)
    return value


def _dump(body: dict[str, Any] | None) -> bytes:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    # A lone surrogate in a caller's text cannot be sent; the replacement sign can.
    return text.encode("utf-8", "replace")


def _not_a_stream(response: Response) -> Exception:
    kind = failures.clean(response.content_type) or "nothing"
    if kind == "application/json":
        value = parse_object(response.read(MAX_ERROR_BYTES))
        if value.get("error") is not None:
            return failures.from_error_object(value)
    return failures.broke(f"The engine answered with {kind} instead of a stream of events.")
