"""A WSGI application for tests of the web server: `/slow` ends when a file appears."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    """Answer at once, or in two pieces."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/slow":
        yield b"begun "
        while not Path(environ["QUERY_STRING"]).exists():
            time.sleep(0.01)
    yield b"done"
