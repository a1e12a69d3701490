"""Routes that say what they take and give: schemas in, schemas out, OpenAPI for free."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import Blueprint, Response, current_app, request
from pydantic import BaseModel, ValidationError

from app.core.domain.errors import NotFound
from app.web.dialects import Violation, dialect_map
from app.web.errors import BadRequestBody
from app.web.uploads import STREAMED

View = Callable[..., Any]
Model = TypeVar("Model", bound=BaseModel)
_MAX_ID = 2**31 - 1  # PostgreSQL keeps our ids in 32 bits
_FORM_TYPES = frozenset({"multipart/form-data", "application/x-www-form-urlencoded"})


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """What one route promises; the OpenAPI document is written from these."""

    method: str
    rule: str
    view: View
    endpoint: str
    status: int
    body: type[BaseModel] | None
    query: type[BaseModel] | None
    answer: Any
    media_type: str
    is_open: bool
    form_bytes: int | None = None
    files: tuple[str, ...] = ()
    also_answers: tuple[str, ...] = ()
    form: type[BaseModel] | None = None


apis: dict[str, Api] = {}
"""The routes of each blueprint that has an API, by the blueprint's name."""


class Api:
    """Registers a dialect's routes on its blueprint and remembers what they promise."""

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint = blueprint
        self.routes: list[RouteSpec] = []
        apis[blueprint.name] = self

    def route(
        self,
        method: str,
        rule: str,
        *,
        body: type[BaseModel] | None = None,
        query: type[BaseModel] | None = None,
        answer: Any = None,
        status: int = 200,
        media_type: str = "application/json",
        is_open: bool = False,
        form_bytes: int | None = None,
        files: tuple[str, ...] = (),
        also_answers: tuple[str, ...] = (),
        form: type[BaseModel] | None = None,
    ) -> Callable[[View], View]:
        """Register the decorated view for `method` and `rule`.

        The view is called with the path's values, and `body=` / `query=` parsed by their
        schemas. It returns a model, plain data, None (no content) or a Response.
        `is_open` routes answer without a credential. With `form_bytes` the body may also come
        as a form of so many bytes at most, with `files` in `request.files`.
        `also_answers` names media types that the route answers with on other wishes.
        With `form` the view reads its multipart form itself, as it arrives: these fields,
        and `files`.
        """

        def register(view: View) -> View:
            @functools.wraps(view)
            def wrapped(**path: Any) -> Response:
                _refuse_impossible(path.values())
                if body is not None:
                    path["body"] = parse_body(body, form_bytes=form_bytes)
                if query is not None:
                    path["query"] = parse_query(query)
                return to_response(view(**path), status)

            endpoint = f"{view.__name__}_{method.lower()}"
            self.blueprint.add_url_rule(rule, endpoint, wrapped, methods=[method])
            spec = RouteSpec(
                method, rule, view, f"{self.blueprint.name}.{endpoint}", status,
                body, query, answer, media_type, is_open, form_bytes, files, also_answers, form,
            )  # fmt: skip
            self.routes.append(spec)
            if form is not None:
                STREAMED.add(spec.endpoint)
            return view

        return register

    @property
    def open_endpoints(self) -> frozenset[str]:
        """Endpoints that answer without a credential."""
        return frozenset(spec.endpoint for spec in self.routes if spec.is_open)


def to_response(value: Any, status: int = 200) -> Response:
    """A view's result as a response; JSON unless it is one already."""
    if isinstance(value, Response):
        return value
    if value is None:
        return Response(status=204 if status == 200 else status)
    if isinstance(value, BaseModel):
        return Response(
            value.model_dump_json(by_alias=True), status, mimetype="application/json"
        )
    return json_response(value, status)


def json_response(value: Any, status: int = 200) -> Response:
    """Plain data as compact UTF-8 JSON."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)
    return Response(text, status, mimetype="application/json")


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    raise TypeError(f"{type(value).__name__} is no JSON")


def parse_body(schema: type[Model], *, form_bytes: int | None = None) -> Model:
    """The JSON body as `schema`. An empty body is fine where nothing is required.

    With `form_bytes`, also a form of so many bytes at most; its names may be dotted
    (`user.email`). Raises BadRequestBody with the dialect's own status; too long a body is a
    413.
    """
    if form_bytes is not None and request.mimetype in _FORM_TYPES:
        request.max_content_length = form_bytes
        return validate(schema, _nested(request.form.to_dict()), "body")
    dialect = dialect_map().of_path(request.path)
    raw = read_json_bytes()
    if not raw.strip():
        raw = b"{}"
    elif not _claims_json():
        status = dialect.media_type_status if dialect else 415
        message = "Send the body as application/json."
        raise BadRequestBody(
            status, "unsupported_media_type", (Violation(("body",), message, "media_type"),)
        )
    if b"\\u0000" in raw:
        _refuse_nul(raw, dialect.invalid_status if dialect else 400)
    try:
        return schema.model_validate_json(raw)
    except ValidationError as error:
        violations = _violations(error, "body")
        is_broken = violations[0].rule == "json_invalid"
        invalid = dialect.invalid_status if dialect else 400
        malformed = dialect.malformed_status if dialect else 400
        raise BadRequestBody(
            malformed if is_broken else invalid, "invalid", violations
        ) from None


def read_json_bytes() -> bytes:
    """The raw body, at most MAX_JSON_BYTES of it (413 above, before it is read)."""
    request.max_content_length = current_app.extensions["weft_settings"].max_json_bytes
    return request.get_data(cache=True)


def parse_query(schema: type[Model]) -> Model:
    """The query string as `schema`; a name that occurs twice counts once, the last."""
    values = {name: found[-1] for name, found in request.args.to_dict(flat=False).items()}
    return validate(schema, values, "query")


def validate(schema: type[Model], values: Any, part: str) -> Model:
    """`values` as `schema`. Raises BadRequestBody; `part` names where they stood."""
    dialect = dialect_map().of_path(request.path)
    status = dialect.invalid_status if dialect else 400
    if "\x00" in str(values) or "\\x00" in str(values):
        _refuse_nul(json.dumps(values, default=str).encode(), status)
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise BadRequestBody(status, "invalid", _violations(error, part)) from None


def _nested(flat: dict[str, str]) -> dict[str, Any]:
    """`{"user.email": …}` as `{"user": {"email": …}}`."""
    found: dict[str, Any] = {}
    for name, value in flat.items():
        outer, dot, inner = name.partition(".")
        if not dot:
            found[name] = value
        elif isinstance(found.setdefault(outer, {}), dict):
            found[outer][inner] = value
    return found


def _refuse_impossible(values: Iterable[Any]) -> None:
    """A path with a number that no id reaches leads nowhere."""
    if any(isinstance(value, int) and value > _MAX_ID for value in values):
        raise NotFound


def _refuse_nul(raw: bytes, status: int) -> None:
    """No text holds U+0000: databases cannot keep it and C programs stop there."""
    try:
        decoded = json.dumps(json.loads(raw), ensure_ascii=False)
    except (ValueError, RecursionError):
        return  # no JSON at all: the schema says so
    # What is left after decoding once is a real NUL, unless its backslash is escaped itself.
    if "\\u0000" in decoded.replace("\\\\", ""):
        message = "Text may not hold the character U+0000."
        raise BadRequestBody(
            status, "invalid", (Violation(("body",), message, "nul_character"),)
        )


def _claims_json() -> bool:
    kind = request.mimetype
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


def _violations(error: ValidationError, part: str) -> tuple[Violation, ...]:
    return tuple(
        Violation((part, *found["loc"]), _sentence(found["msg"]), found["type"])
        for found in error.errors(include_url=False, include_input=False, include_context=False)
    )


def _sentence(message: str) -> str:
    return message.removeprefix("Value error, ")
