"""Documentation that has to agree with the code."""

from __future__ import annotations

import enum
import importlib
import pkgutil
import re
from pathlib import Path

import app.core.domain
from app.config import Settings
from app.local.settings_page import PAGE, render

ROOT = Path(__file__).parents[2]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()

STATE_NAMES = ("State", "Status", "FinishReason", "Role")


def domain_states() -> list[tuple[str, str]]:
    """Every value of every state enum of the domain."""
    modules = pkgutil.iter_modules(app.core.domain.__path__, "app.core.domain.")
    things = [
        (name, thing)
        for module in modules
        for name, thing in vars(importlib.import_module(module.name)).items()
    ]
    return [
        (name, str(value))
        for name, thing in things
        if isinstance(thing, type)
        and issubclass(thing, enum.StrEnum)
        and name.endswith(STATE_NAMES)
        for value in thing
    ]


def test_the_settings_page_is_the_one_that_make_docs_writes() -> None:
    assert PAGE.read_text() == render(), "run `make docs`"


def test_every_setting_says_what_it_means() -> None:
    silent = [f.alias for f in Settings.model_fields.values() if not f.description]

    assert silent == []


def test_the_example_environment_names_only_settings_that_exist() -> None:
    named = re.findall(r"^#?([A-Z][A-Z_]+)=", (ROOT / ".env.example").read_text(), re.M)

    assert named
    assert set(named) <= {field.alias for field in Settings.model_fields.values()}


def test_the_glossary_has_every_state() -> None:
    states = domain_states()
    missing = [f"{name}.{value}" for name, value in states if f"`{value}`" not in GLOSSARY]

    assert ("RunState", "queued") in states
    assert missing == []


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]

    assert broken == []
