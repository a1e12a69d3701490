"""Server-sent events as engines send them, down to the payloads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

DONE = b"[DONE]"


def payloads(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The payload of each `data` line; `[DONE]` comes through as `DONE`.

    Engines write one line per event, so a line is an event. Comments, blank lines, `event:`,
    `id:` and `retry:` are dropped. Old llama.cpp servers report a failure in a line of its
    own kind, `error: {…}`: it comes out in the shape of all the others, `{"error": {…}}`.
    The end of the lines is no end of the answer: the caller knows what must have come.
    """
    for line in lines:
        if line.startswith(b"data:"):
            payload = line[6:] if line.startswith(b"data: ") else line[5:]
            if payload.endswith(b"\r"):
                payload = payload[:-1]
            if payload:
                yield payload
        elif line.startswith(b"error:"):
            yield b'{"error":' + line[6:].strip() + b"}"
