"""A fake engine as a program: prints its port, serves until its input ends."""

from __future__ import annotations

import sys

from tests.fakes.http_server import FakeServer
from tests.fakes.openai_engine import OpenAIEngine


def main() -> None:
    """Serve on 127.0.0.1 of whatever network this process lives in."""
    with FakeServer(OpenAIEngine(flavour="vllm").handle) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        sys.stdin.read()


main()
