"""Which model does a research, and which can see."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.domain.errors import NoCapacity
from app.core.services.research_models import (
    Chosen,
    ResearchModels,
    choose_models,
    sees_images,
)
from tests.dashboard.conftest import Rows
from tests.fixtures.accounts import Person


@pytest.mark.parametrize(
    "name",
    [
        "llava-hf/llava-1.5-7b-hf", "Qwen/Qwen2.5-VL-7B-Instruct", "qwen3-vl:8b", "gemma3:4b",
        "google/gemma-3-27b-it", "mistralai/Pixtral-12B-2409", "OpenGVLab/InternVL3-8B",
        "HuggingFaceTB/SmolVLM2-2.2B-Instruct", "meta-llama/Llama-3.2-11B-Vision-Instruct",
        "openbmb/MiniCPM-V-4", "my/own-vlm",
    ],
)  # fmt: skip
def test_vision_models_are_known_by_their_families(name: str) -> None:
    assert sees_images(name, ResearchModels())


@pytest.mark.parametrize(
    "name",
    [
        "smollm2-135m-instruct", "Qwen/Qwen2.5-7B-Instruct", "meta-llama/Llama-3.1-8B",
        "google/gemma-2-2b", "gemma3:1b", "google/gemma-3-1b-it", "mistralai/Mistral-7B-v0.3",
        "microsoft/phi-3-mini-3.8b", "revision-7b",
    ],
)  # fmt: skip
def test_other_models_are_blind_unless_the_operator_says_otherwise(name: str) -> None:
    assert not sees_images(name, ResearchModels())
    assert sees_images(name, ResearchModels(vision=(name,)))


@pytest.fixture
def rows(sessions: sessionmaker[Session]) -> Rows:
    """Makes rows."""
    return Rows(sessions)


def choose(
    session: Session, person: Person, wanted: ResearchModels, *, image: bool = False
) -> Chosen:
    return choose_models(
        session, person.identity, wanted, has_image=image, now=utc_now(),
        offline_after_seconds=90,
    )  # fmt: skip


def test_the_largest_context_writes_unless_a_model_is_set(
    session: Session, rows: Rows, owner: Person
) -> None:
    node = rows.node(owner)
    rows.replica(node, model="small", context_tokens=2048, concurrency=64)
    rows.replica(node, model="large", context_tokens=8192, concurrency=1)
    rows.replica(node, model="llava", context_tokens=512)

    assert choose(session, owner, ResearchModels()) == Chosen("large", 8192, None)
    assert choose(session, owner, ResearchModels("small")) == Chosen("small", 2048, None)
    seen = choose(session, owner, ResearchModels(), image=True)
    assert (seen.writer, seen.viewer) == ("large", "llava")
    with pytest.raises(NoCapacity, match="gone"):
        choose(session, owner, ResearchModels("gone"))


def test_an_image_needs_a_model_that_sees(session: Session, rows: Rows, owner: Person) -> None:
    rows.replica(rows.node(owner), model="blind")

    with pytest.raises(NoCapacity, match="vision model"):
        choose(session, owner, ResearchModels(), image=True)
    assert (
        choose(session, owner, ResearchModels(vision=("blind",)), image=True).viewer == "blind"
    )
