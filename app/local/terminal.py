"""What the local run says on the terminal: the programs' lines, and how to begin."""

from __future__ import annotations

import json
import sys

from app.local.record import LocalRecord

COLOURS = {"redis": 35, "setup": 90, "worker": 36, "web": 32, "node": 33, "weft": 1}
NAME_WIDTH = 8


def show(name: str, line: str) -> None:
    """One line of a program, with its name before it."""
    label = f"{name:<{NAME_WIDTH}} │"
    if sys.stdout.isatty():
        label = f"\033[{COLOURS.get(name.split('-')[0], 37)}m{label}\033[0m"
    print(label, line, flush=True)  # noqa: T201 - this is the terminal


def say(text: str) -> None:
    """A message of our own."""
    print(text, flush=True)  # noqa: T201


def complain(text: str) -> None:
    """Why it did not work."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def welcome(url: str, record: LocalRecord, models: list[str]) -> str:
    """Where the hub is, how to sign in, and a first prompt to try."""
    password = record.admin_password or "the one you set"
    lines = [
        "",
        f"  Weft is up:  {url}",
        "",
        f"  Sign in      {record.admin_email}   password: {password}",
        f"  API key      {record.api_key}",
        "",
    ]
    if models:
        lines += ["  Try it:", "", _curl(url, record.api_key, models[0]), ""]
    else:
        lines += [
            "  No model is served yet. Sign in and add a node, on this machine or another.",
            "",
        ]
    lines.append("  Ctrl-C stops all of it; the data stays.")
    return "\n".join([*lines, ""])


def _curl(url: str, api_key: str, model: str) -> str:
    body = {
        "model": model,
        "stream": True,
        "messages": [{"role": "user", "content": "Say hello in one sentence."}],
    }
    return (
        f"    curl -N {url}/v1/chat/completions \\\n"
        f"      -H 'Authorization: Bearer {api_key}' -H 'Content-Type: application/json' \\\n"
        f"      -d '{json.dumps(body)}'"
    )
