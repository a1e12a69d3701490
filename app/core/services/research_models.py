"""Which models do a research: one that writes, and one that sees when there is an image."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from app.core.domain.accounts import Identity
from app.core.domain.errors import NoCapacity
from app.core.services import models
from app.core.services.models import AvailableModel

_RETRY_AFTER_SECONDS = 30

# Families whose members take images, by the names they go by on hubs and in engines.
_VISION = re.compile(
    r"llava|bakllava|moondream|pixtral|internvl|smolvlm|minicpm-?[vo]|cogvlm|molmo|aya-vision"
    r"|idefics|paligemma|fuyu|florence|phi-?(3|3\.5|4)-(vision|multimodal)|granite-?vision"
    r"|qwen-?(2|2\.5|3)?-?vl|qvq|gemma-?3(?!n|-?1b|:1b|-?270m|:270m)|gemma-?4|glm-?4\.?\d?v"
    r"|llama-?3\.2-?(11b|90b)?-?vision|llama-?4|mistral-small-?3\.[12]|deepseek-vl|step-?\d?v"
    r"|nvlm|ovis|kimi-vl|[-_/.](vl|vlm|vision)([-_.:]|$)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class ResearchModels:
    """What an operator set: the model that writes, and models that see whatever their name."""

    preferred: str = ""
    vision: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chosen:
    """The models of one job. `context_tokens` are the writer's, None when no engine told."""

    writer: str
    context_tokens: int | None
    viewer: str | None


def sees_images(name: str, wanted: ResearchModels) -> bool:
    """Whether a model takes images: the operator says so, or its family is known to."""
    return name in wanted.vision or _VISION.search(name) is not None


def choose_models(
    session: Session,
    caller: Identity,
    wanted: ResearchModels,
    *,
    has_image: bool,
    now: datetime,
    offline_after_seconds: float,
) -> Chosen:
    """The models for a job asked now. Raises NoCapacity when none fits."""
    available = models.list_available(
        session, now=now, offline_after_seconds=offline_after_seconds
    )
    if caller.model_name is not None:
        available = [model for model in available if model.name == caller.model_name]
    writer = _choose_writer(available, wanted)
    viewer = None
    if has_image:
        seeing = [model for model in available if sees_images(model.name, wanted)]
        if not seeing:
            raise NoCapacity(
                "No vision model is online, so nobody can look at the image.",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        viewer = max(seeing, key=_worth).name
    return Chosen(writer.name, writer.context_tokens, viewer)


def _choose_writer(
    available: Sequence[AvailableModel], wanted: ResearchModels
) -> AvailableModel:
    preferred = [model for model in available if model.name == wanted.preferred]
    if preferred:
        return preferred[0]
    if wanted.preferred:
        raise NoCapacity(
            f"No online node serves {wanted.preferred}, the model for research.",
            retry_after_seconds=_RETRY_AFTER_SECONDS,
        )
    if not available:
        raise NoCapacity(
            "No online node serves a model now.", retry_after_seconds=_RETRY_AFTER_SECONDS
        )
    return max(available, key=_worth)


def _worth(model: AvailableModel) -> tuple[int, int, str]:
    """More context is better; then more places, which answer more at a time."""
    return (model.context_tokens or 0, model.places, model.name)
