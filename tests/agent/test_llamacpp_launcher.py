"""The built-in engine's launcher, as far as it needs no model."""

from __future__ import annotations

import pytest

from agent.config import BuiltInOptions
from agent.launchers.llamacpp import LlamaCppLauncher
from agent.launchers.llamacpp_server import LISTENING
from agent.logs import LogBuffer, Redactor


@pytest.mark.parametrize("before", ["", "0.00.711.033 I srv          init: mod"])
def test_the_address_is_found_behind_half_a_line_of_another_thread(before: str) -> None:
    changes: list[int] = []
    launcher = LlamaCppLauncher(
        "tiny",
        BuiltInOptions(),
        environment={},
        threads=1,
        logs=LogBuffer(Redactor()),
        on_change=lambda: changes.append(1),
        is_direct=False,
    )
    launcher._on_line(f"{before}{LISTENING}http://127.0.0.1:4321")
    address = launcher.address()
    assert address is not None
    assert address.base_url == "http://127.0.0.1:4321"
    assert changes == [1]
