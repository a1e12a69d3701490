"""A run's messages as engines may have them."""

from __future__ import annotations

import re
from typing import Any

from app.core.domain.errors import InvalidInput

# Text-generation-inference fetches what stands in this notation, also in plain text.
_MARKDOWN_IMAGE = re.compile(r"!(?=\[[^\]]*\]\()")


def engine_messages(messages: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    """The messages without empty keys.

    Raises InvalidInput for an image that is not inline: an engine would fetch its URL from
    inside a provider's network, on behalf of a stranger.
    """
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") == "image_url":
                _check_image(part.get("image_url"))
    return [_drop_empty(message) for message in messages]


def without_markdown_images(text: str) -> str:
    """The text with `![…](…)` turned into the link `[…](…)`, which nobody fetches."""
    return _MARKDOWN_IMAGE.sub("", text) if "![" in text else text


def _drop_empty(message: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in message.items() if value is not None}
    if not kept.get("tool_calls"):
        kept.pop("tool_calls", None)
        kept.setdefault("content", "")
    return kept


def _check_image(image: Any) -> None:
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str) or not url.startswith("data:image/"):
        raise InvalidInput("Send images inline, as data:image/… URLs.", field="messages")
