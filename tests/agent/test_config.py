"""What the agent makes of its command line and environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import SettingsUnusable, engine_environment, load_settings

HUB = "https://hub.example.org"


def test_the_built_in_engine_is_the_default() -> None:
    settings = load_settings(["--hub", HUB, "--token", "t"], {})
    assert settings.engine == "llamacpp"
    assert settings.model_name == "smollm2-135m-instruct"
    assert settings.mode == "relay"


def test_a_model_file_names_its_model() -> None:
    settings = load_settings(["--hub", HUB, "--model-file", "/models/Tiny-Q4.gguf"], {})
    assert settings.model_name == "Tiny-Q4"
    assert settings.built_in.model_file == Path("/models/Tiny-Q4.gguf")


def test_a_hub_on_this_machine_uses_the_relay_too() -> None:
    local = ["--hub", "http://127.0.0.1:8000"]
    assert not load_settings(local, {}).is_direct
    assert load_settings([*local, "--direct"], {}).is_direct


def test_a_public_endpoint_means_direct() -> None:
    settings = load_settings(["--hub", HUB, "--endpoint-public", "https://gpu.example.org"], {})
    assert settings.is_direct
    assert settings.public_url == "https://gpu.example.org"


def test_endpoints_and_models_go_in_pairs() -> None:
    settings = load_settings(
        ["--hub", HUB, "--endpoint", "http://127.0.0.1:8001/v1/", "--model", "one",
         "--endpoint", "http://127.0.0.1:8002", "--model", "two", "--engine", "vllm"],
        {},
    )  # fmt: skip
    first, second = settings.attachments
    assert (first.url, first.model_name) == ("http://127.0.0.1:8001", "one")
    assert (second.url, second.model_name) == ("http://127.0.0.1:8002", "two")
    assert {first.engine, second.engine} == {"vllm"}
    assert settings.engine is None


def test_the_environment_stands_in_for_options() -> None:
    environment = {
        "WEFT_AGENT_HUB": HUB,
        "WEFT_AGENT_TOKEN": "from-env",
        "WEFT_AGENT_ENDPOINT": "http://127.0.0.1:1, http://127.0.0.1:2",
        "WEFT_AGENT_MODEL": "one,two",
        "WEFT_AGENT_SLOTS": "2",
    }
    settings = load_settings([], environment)
    assert settings.token == "from-env"
    assert [one.model_name for one in settings.attachments] == ["one", "two"]
    given = load_settings(["--endpoint", "http://127.0.0.1:3", "--model", "three"], environment)
    assert [one.model_name for one in given.attachments] == ["three"]


def test_the_token_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    settings = load_settings(["--hub", HUB, "--token-file", str(tmp_path / "token")], {})
    assert settings.token == "secret"


def test_each_hub_has_its_own_folder() -> None:
    one = load_settings(["--hub", "https://a.example.org"], {}).state_dir
    two = load_settings(["--hub", "https://a.example.org:8443"], {}).state_dir
    assert one != two
    assert one.parent.name == ".weft-agent"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--hub"),
        (["--hub", "ftp://x"], "http"),
        (["--hub", "https://user:pw@hub.example.org"], "user name"),
        (["--hub", HUB, "--endpoint", "http://x"], "--model for each"),
        (["--hub", HUB, "--endpoint", "x:1", "--model", "m"], "--endpoint"),
        (["--hub", HUB, "--engine", "vllm"], "--endpoint"),
        (["--hub", HUB, "--engine", "tgi"], "--model"),
        (["--hub", HUB, "--no-engine", "--engine", "tgi"], "--no-engine"),
        (["--hub", HUB, "--model", "a", "--model", "b"], "Only one"),
    ],
)
def test_nonsense_is_refused_with_the_way_out(arguments: list[str], says: str) -> None:
    with pytest.raises(SettingsUnusable, match=says):
        load_settings(arguments, {})


def test_engines_get_none_of_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFT_AGENT_TOKEN", "secret")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("PATH", "/bin")
    given = engine_environment()
    assert given["PATH"] == "/bin"
    assert "secret" not in " ".join(given.values())
