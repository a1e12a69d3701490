"""What the agent keeps on disk."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from agent.state import StateFolder, StateUnusable

HUB = "https://hub.example.org"


def test_the_client_id_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    state.open()
    first = state.load(HUB)
    again = state.load(HUB)
    state.close()
    assert first.client_id == again.client_id
    assert len(first.client_id) == 32
    assert int(first.client_id, 16) >= 0
    mode = stat.S_IMODE((tmp_path / "state" / "agent.json").stat().st_mode)
    assert mode == 0o600


def test_a_token_is_never_used_with_another_hub(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    state.open()
    identity = state.load(HUB)
    state.save(replace(identity, node_token="secret", node_id="1"))
    assert state.load(HUB).node_token == "secret"
    elsewhere = state.load("https://other.example.org")
    state.close()
    assert elsewhere.node_token is None
    assert elsewhere.client_id == identity.client_id


def test_one_folder_serves_one_agent(tmp_path: Path) -> None:
    first, second = StateFolder(tmp_path), StateFolder(tmp_path)
    first.open()
    with pytest.raises(StateUnusable, match="--state-dir"):
        second.open()
    first.close()
    second.open()
    second.close()


def test_a_broken_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "agent.json").write_text("{")
    state = StateFolder(tmp_path)
    state.open()
    with pytest.raises(StateUnusable, match="--token"):
        state.load(HUB)
    state.close()
