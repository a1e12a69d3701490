"""What a dialect tells the web layer about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flask import Blueprint, Response, current_app

# Every way to say who calls opens every API.
CARRIERS = ("basic", "token", "bearer", "key")


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong with a request: where (`("body", "email")`), what, which rule."""

    location: tuple[str | int, ...]
    message: str
    rule: str

    @property
    def field(self) -> str:
        """The field's own name, dotted, without the part of the request it stands in."""
        return ".".join(str(part) for part in self.location[1:]) or str(self.location[0])


@dataclass(frozen=True, slots=True)
class ApiError:
    """A refusal, ready to be put in a dialect's shape."""

    status: int
    code: str
    message: str
    field: str | None = None
    violations: tuple[Violation, ...] = ()
    retry_after_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Dialect:
    """One JSON API that Weft speaks.

    `prefixes` are path prefixes on segment borders; the longest that matches a URL decides
    how its errors look, also when no route matches. `invalid_status` answers a body that
    breaks the schema, `malformed_status` one that isn't JSON, `media_type_status` one that
    claims to be something else.
    """

    name: str
    prefixes: tuple[str, ...]
    blueprint: Blueprint
    render_error: Callable[[ApiError], Response]
    invalid_status: int = 400
    malformed_status: int = 400
    media_type_status: int = 415
    is_api: bool = True
    # For the OpenAPI document: what this API is, and the JSON Schema of its errors.
    summary: str = ""
    error_schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"})
    carriers: tuple[str, ...] = CARRIERS


class DialectMap:
    """Finds the dialect of a path."""

    def __init__(self, dialects: tuple[Dialect, ...]) -> None:
        self.dialects = dialects
        pairs = [(prefix, dialect) for dialect in dialects for prefix in dialect.prefixes]
        self._by_length = sorted(pairs, key=lambda pair: len(pair[0]), reverse=True)

    def of_path(self, path: str) -> Dialect | None:
        """The dialect with the longest prefix of `path`; None when no API has it."""
        for prefix, dialect in self._by_length:
            if path == prefix or path.startswith(
                prefix if prefix.endswith("/") else prefix + "/"
            ):
                return dialect
        return None


def dialect_map() -> DialectMap:
    """The current app's dialects."""
    found: DialectMap = current_app.extensions["weft_dialects"]
    return found
