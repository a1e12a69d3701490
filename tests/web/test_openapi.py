"""The OpenAPI documents: valid, complete, and the pages that show them."""

from __future__ import annotations

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.web.dialects import DialectMap
from app.web.openapi import has_routes, path_of
from app.web.validation import apis

pytestmark = pytest.mark.one_database
NAMES = ["torbiz", "fabric", "aitip", "dualquery", "openai", "agent", "health"]


@pytest.mark.parametrize(
    "path", ["/openapi.json", *[f"/openapi/{name}.json" for name in NAMES]]
)
def test_every_document_is_valid(client: FlaskClient, path: str) -> None:
    document = client.get(path).get_json()
    errors = [str(error) for error in OpenAPIV31SpecValidator(document).iter_errors()]
    assert not errors
    assert document["openapi"] == "3.1.0"


def test_every_route_of_an_api_is_in_the_document(app: Flask, client: FlaskClient) -> None:
    document = client.get("/openapi.json").get_json()
    known = {(m.upper(), p) for p, methods in document["paths"].items() for m in methods}
    dialects: DialectMap = app.extensions["weft_dialects"]
    blueprints = {d.blueprint.name for d in dialects.dialects if has_routes(d)}
    served = {
        (method, path_of(rule.rule))
        for rule in app.url_map.iter_rules()
        if rule.endpoint.split(".")[0] in blueprints
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    declared = {
        (spec.method, path_of(spec.rule)) for name in blueprints for spec in apis[name].routes
    }
    assert declared <= known
    # What is not declared is not JSON in and out: a WebSocket, say.
    assert {path for _, path in served - known} <= {"/agent/v1/relay"}


def test_path_parameters_carry_their_types(client: FlaskClient) -> None:
    document = client.get("/openapi/torbiz.json").get_json()
    [parameter] = document["paths"]["/gpu/list/{gpu_id}/"]["get"]["parameters"]
    assert parameter["schema"] == {"type": "integer"}
    assert parameter["required"] is True


def test_open_routes_say_that_they_need_no_credential(client: FlaskClient) -> None:
    paths = client.get("/openapi/aitip.json").get_json()["paths"]
    assert {} in paths["/api/v1/auth/login"]["post"]["security"]
    assert {} not in paths["/api/v1/auth/me"]["get"]["security"]


def test_the_pages_show_every_operation_without_inline_script(client: FlaskClient) -> None:
    page = client.get("/docs/dualquery")
    text = page.get_data(as_text=True)
    assert page.status_code == 200
    assert "/api/auth/register" in text
    assert not re.search(r"<script(?![^>]*\bsrc=)", text)
    assert "/docs/dualquery" in client.get("/docs").get_data(as_text=True)


def test_an_unknown_api_is_not_found(client: FlaskClient) -> None:
    assert client.get("/openapi/nothing.json").status_code == 404
    assert client.get("/docs/nothing").status_code == 404
