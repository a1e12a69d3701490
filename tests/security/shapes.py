"""How each dialect says no."""

from __future__ import annotations

from typing import Any

from tests.security.routes import Answer
from tests.web.test_errors import (
    is_aitip,
    is_dualquery,
    is_fabric,
    is_openai,
    is_problem,
    is_torbiz,
)

CHECKS: dict[str, Any] = {
    "torbiz": is_torbiz,
    "aitip": is_aitip,
    "dualquery": is_dualquery,
    "fabric": is_fabric,
    "openai": is_openai,
    "agent": is_problem,
    "health": lambda body, status: isinstance(body, dict),
}


def is_in_shape(dialect: str, answer: Answer) -> bool:
    """Whether a refusal of an API looks as its dialect promises."""
    expected = "application/problem+json" if dialect == "agent" else "application/json"
    if answer.mimetype != expected or not isinstance(answer.json, dict):
        return False
    return bool(CHECKS[dialect](answer.json, answer.status))
