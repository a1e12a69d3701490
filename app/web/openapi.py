"""OpenAPI 3.1 documents, written from what the routes promise: one a dialect, and one of all."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from app.web.dialects import Dialect
from app.web.validation import RouteSpec, apis

REF_TEMPLATE = "#/components/schemas/{model}"
VERSION = "1.0.0"
_PATH_PART = re.compile(r"<(?:(?P<kind>\w+)(?:\([^)]*\))?:)?(?P<name>\w+)>")
_JSON = "application/json"
_TYPE_OF_KIND = {"int": {"type": "integer"}, "float": {"type": "number"}}
_SECURITY_SCHEMES: Mapping[str, Any] = {
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": "E-mail or user name, and password.",
    },
    "token": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "`Token …`, as a torbiz login gives it.",
    },
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A JWT, a token or an `sk-…` key.",
    },
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "node": {
        "type": "http",
        "scheme": "bearer",
        "description": "A node's token; an enrolment token to enrol.",
    },
}

_Key = tuple[str, JsonSchemaMode]


def build_document(dialects: Iterable[Dialect]) -> dict[str, Any]:
    """The document of these dialects together. Takes a few tenths of a second."""
    chosen = [dialect for dialect in dialects if _routes(dialect)]
    schemas, definitions = _collect_schemas(chosen)
    paths: dict[str, dict[str, Any]] = {}
    for dialect in chosen:
        definitions[_error_name(dialect)] = dict(dialect.error_schema)
        for spec in _routes(dialect):
            operation = _Operation(dialect, spec, schemas, definitions).document()
            paths.setdefault(path_of(spec.rule), {})[spec.method.lower()] = operation
    carriers = {name for dialect in chosen for name in dialect.carriers}
    names = ", ".join(dialect.name for dialect in chosen)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Weft: {names}",
            "version": VERSION,
            "description": " ".join(d.summary for d in chosen if d.summary) or "Weft",
        },
        "tags": [{"name": d.name, "description": d.summary} for d in chosen],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {
                name: scheme for name, scheme in _SECURITY_SCHEMES.items() if name in carriers
            },
        },
    }


def path_of(rule: str) -> str:
    """A Flask rule in OpenAPI's spelling: `/a/<int:id>/` is `/a/{id}/`."""
    return _PATH_PART.sub(lambda match: "{" + match["name"] + "}", rule)


def has_routes(dialect: Dialect) -> bool:
    """Whether there is something to document."""
    return dialect.is_api and bool(_routes(dialect))


def _routes(dialect: Dialect) -> list[RouteSpec]:
    api = apis.get(dialect.blueprint.name)
    return api.routes if api is not None else []


def _error_name(dialect: Dialect) -> str:
    return f"{dialect.name.capitalize()}Error"


def _collect_schemas(
    dialects: Iterable[Dialect],
) -> tuple[dict[_Key, dict[str, Any]], dict[str, Any]]:
    """Schemas of all bodies, queries and answers, with names that don't collide."""
    wanted: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = []
    for dialect in dialects:
        for spec in _routes(dialect):
            key = spec.endpoint
            if spec.body is not None:
                wanted.append((f"{key} body", "validation", TypeAdapter(spec.body)))
            if spec.form is not None:
                wanted.append((f"{key} form", "validation", TypeAdapter(spec.form)))
            if spec.query is not None:
                wanted.append((f"{key} query", "validation", TypeAdapter(spec.query)))
            if spec.answer is not None:
                wanted.append((f"{key} answer", "serialization", TypeAdapter(spec.answer)))
    if not wanted:
        return {}, {}
    schemas, rest = TypeAdapter.json_schemas(wanted, ref_template=REF_TEMPLATE)
    return schemas, dict(rest.get("$defs", {}))


class _Operation:
    """One method of one path."""

    def __init__(
        self,
        dialect: Dialect,
        spec: RouteSpec,
        schemas: Mapping[_Key, dict[str, Any]],
        definitions: Mapping[str, Any],
    ) -> None:
        self._dialect = dialect
        self._spec = spec
        self._schemas = schemas
        self._definitions = definitions

    def document(self) -> dict[str, Any]:
        """The operation object."""
        spec = self._spec
        text = inspect.getdoc(spec.view) or spec.view.__name__
        summary, _, rest = text.partition("\n")
        found: dict[str, Any] = {
            "operationId": spec.endpoint.replace(".", "_"),
            "tags": [self._dialect.name],
            "summary": summary.strip(),
            "security": self._security(),
            "responses": self._responses(),
        }
        if rest.strip():
            found["description"] = rest.strip()
        if parameters := self._path_parameters() + self._query_parameters():
            found["parameters"] = parameters
        if spec.body is not None or spec.files:
            found["requestBody"] = self._request_body()
        return found

    def _security(self) -> list[dict[str, list[str]]]:
        ways: list[dict[str, list[str]]] = [{name: []} for name in self._dialect.carriers]
        return [{}, *ways] if self._spec.is_open else ways

    def _path_parameters(self) -> list[dict[str, Any]]:
        return [
            {
                "name": match["name"],
                "in": "path",
                "required": True,
                "schema": _TYPE_OF_KIND.get(match["kind"] or "", {"type": "string"}),
            }
            for match in _PATH_PART.finditer(self._spec.rule)
        ]

    def _query_parameters(self) -> list[dict[str, Any]]:
        if self._spec.query is None:
            return []
        schema = self._resolved(self._schemas[(f"{self._spec.endpoint} query", "validation")])
        required = schema.get("required", [])
        return [
            {"name": name, "in": "query", "required": name in required, "schema": part}
            for name, part in schema.get("properties", {}).items()
        ]

    def _request_body(self) -> dict[str, Any]:
        spec = self._spec
        content: dict[str, Any] = {}
        is_required = bool(spec.files)
        if spec.body is not None:
            schema = self._schemas[(f"{spec.endpoint} body", "validation")]
            content["application/json"] = {"schema": schema}
            is_required = bool(self._resolved(schema).get("required"))
        if spec.form_bytes is not None or spec.files:
            files = {
                name: {
                    "type": "string",
                    "contentMediaType": "application/octet-stream",
                    "description": "A file.",
                }
                for name in spec.files
            }
            content["multipart/form-data"] = {"schema": self._form_schema(files)}
        return {"required": is_required, "content": content}

    def _form_schema(self, files: dict[str, Any]) -> dict[str, Any]:
        if self._spec.form is None:
            return {"type": "object", "properties": files}
        key: _Key = (f"{self._spec.endpoint} form", "validation")
        texts = self._resolved(self._schemas[key]).get("properties", {})
        properties = {**files, **texts}
        return {"type": "object", "properties": properties, "required": list(files)}

    def _responses(self) -> dict[str, Any]:
        spec = self._spec
        found: dict[str, Any] = {str(spec.status): self._success()}
        for status in sorted(self._error_statuses()):
            found[str(status)] = self._error(HTTPStatus(status).phrase)
        found["default"] = self._error("Any other error")
        return found

    def _success(self) -> dict[str, Any]:
        spec = self._spec
        answer: dict[str, Any] = {"description": HTTPStatus(spec.status).phrase}
        if spec.status == 204:
            return answer
        schema: dict[str, Any] = {}
        if spec.answer is not None:
            schema = self._schemas[(f"{spec.endpoint} answer", "serialization")]
        # A schema is of JSON: where that is but one form of the answer, it belongs to that.
        forms = (spec.media_type, *spec.also_answers)
        shaped = _JSON if _JSON in forms else spec.media_type
        answer["content"] = {
            media_type: {"schema": schema if media_type == shaped else {}}
            for media_type in forms
        }
        return answer

    def _error_statuses(self) -> set[int]:
        spec = self._spec
        found = {400, 401, 403, 429}
        if "<" in spec.rule:
            found.add(404)
        if spec.body is not None or spec.files:
            found |= {413, self._dialect.media_type_status, self._dialect.invalid_status}
        if spec.query is not None:
            found.add(self._dialect.invalid_status)
        return found - {spec.status}

    def _error(self, description: str) -> dict[str, Any]:
        is_problem = self._dialect.name == "agent"
        media_type = "application/problem+json" if is_problem else "application/json"
        schema = {"$ref": REF_TEMPLATE.format(model=_error_name(self._dialect))}
        return {"description": description, "content": {media_type: {"schema": schema}}}

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        ref = schema.get("$ref")
        if ref is None:
            return schema
        found: Mapping[str, Any] = self._definitions[ref.rsplit("/", 1)[1]]
        return found
