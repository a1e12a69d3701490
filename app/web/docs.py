"""`/openapi.json`, `/openapi/<dialect>.json` and `/docs`: the APIs, for machines and people."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, render_template

from app.core.domain.errors import NotFound
from app.web.context import base_url
from app.web.dialects import Dialect, dialect_map
from app.web.openapi import build_document, has_routes
from app.web.validation import json_response


def install_docs(app: Flask) -> None:
    """Add the routes."""
    app.add_url_rule("/openapi.json", "openapi", show_all, methods=["GET"])
    app.add_url_rule("/openapi/<name>.json", "openapi_dialect", show_one, methods=["GET"])
    app.add_url_rule("/docs", "docs", show_docs, methods=["GET"])
    app.add_url_rule("/docs/<name>", "docs_dialect", show_docs_of, methods=["GET"])


def documented() -> list[Dialect]:
    """The dialects that have something to document."""
    return [dialect for dialect in dialect_map().dialects if has_routes(dialect)]


@functools.cache
def document_of(*names: str) -> dict[str, Any]:
    """The document of these dialects; routes do not change while a process runs."""
    return build_document(_dialect(name) for name in names)


def show_all() -> Response:
    """Every dialect in one document."""
    return _answer(document_of(*[dialect.name for dialect in documented()]))


def show_one(name: str) -> Response:
    """One dialect's document."""
    return _answer(document_of(_dialect(name).name))


def show_docs() -> str:
    """The list of APIs."""
    return render_template("docs/index.html", dialects=documented())


def show_docs_of(name: str) -> str:
    """One API, operation by operation."""
    dialect = _dialect(name)
    document = document_of(dialect.name)
    operations = [
        _operation(path, method, operation, document["components"]["schemas"])
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    return render_template(
        "docs/dialect.html", dialect=dialect, dialects=documented(), operations=operations
    )


@dataclass(frozen=True, slots=True)
class FieldRow:
    """A field as a reader sees it."""

    name: str
    kind: str
    is_required: bool
    note: str


@dataclass(frozen=True, slots=True)
class OperationView:
    """An operation as a reader sees it."""

    anchor: str
    method: str
    path: str
    summary: str
    description: str
    is_open: bool
    status: str
    parameters: list[FieldRow]
    body: list[FieldRow]
    answer_kind: str
    answer: list[FieldRow]


def _answer(document: dict[str, Any]) -> Response:
    response = json_response({**document, "servers": [{"url": base_url()}]})
    response.headers["Access-Control-Allow-Origin"] = "*"  # public, the same for everybody
    return response


def _dialect(name: str) -> Dialect:
    for dialect in documented():
        if dialect.name == name:
            return dialect
    raise NotFound("There is no such API.")


def _operation(
    path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any]
) -> OperationView:
    status, answer = next(iter(operation["responses"].items()))
    contents: list[dict[str, Any]] = list(answer.get("content", {}).values())
    schema = contents[0].get("schema", {}) if contents else {}
    bodies = operation.get("requestBody", {}).get("content", {})
    body = bodies.get("application/json") or bodies.get("multipart/form-data") or {}
    parameters = [
        FieldRow(one["name"], _kind(one["schema"], schemas), one["required"], one["in"])
        for one in operation.get("parameters", [])
    ]
    return OperationView(
        anchor=operation["operationId"],
        method=method.upper(),
        path=path,
        summary=operation["summary"],
        description=operation.get("description", ""),
        is_open={} in operation["security"],
        status=status,
        parameters=parameters,
        body=_fields(body.get("schema", {}), schemas),
        answer_kind=", ".join(answer.get("content", {})) or "no content",
        answer=_fields(schema, schemas),
    )


def _fields(schema: dict[str, Any], schemas: dict[str, Any]) -> list[FieldRow]:
    """The fields of an object, or of the objects in a list."""
    found = _resolve(schema, schemas)
    if found.get("type") == "array":
        found = _resolve(found.get("items", {}), schemas)
    required = found.get("required", [])
    return [
        FieldRow(name, _kind(part, schemas), name in required, _note(part))
        for name, part in found.get("properties", {}).items()
    ]


def _resolve(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    ref = schema.get("$ref")
    found: dict[str, Any] = schemas[ref.rsplit("/", 1)[1]] if ref else schema
    return found


def _kind(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    """`string`, `integer or null`, `list of Client`, …"""
    if "$ref" in schema:
        return str(schema["$ref"].rsplit("/", 1)[1])
    if "anyOf" in schema:
        kinds = dict.fromkeys(_kind(part, schemas) for part in schema["anyOf"])
        return " or ".join(kinds)
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}), schemas)}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


_BOUNDS = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minimum": "≥ {}",
    "maximum": "≤ {}",
    "default": "default {}",
}


@functools.cache
def _bound(name: str, value: str) -> str:
    return _BOUNDS[name].format(value)


def _note(schema: dict[str, Any]) -> str:
    parts = [schema["description"]] if "description" in schema else []
    if schema.get("minLength") == 1:
        schema = {**schema, "minLength": None}
        parts.append("not empty")
    parts += [
        _bound(name, json.dumps(schema[name]))
        for name in _BOUNDS
        if schema.get(name) is not None
    ]
    return "; ".join(parts)
