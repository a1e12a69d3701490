"""Whether an answer is what the OpenAPI document promises."""

from __future__ import annotations

from flask import Flask
from jsonschema import Draft202012Validator
from werkzeug.test import TestResponse

from app.web.docs import document_of, documented
from app.web.openapi import path_of


def assert_matches_openapi(app: Flask, response: TestResponse) -> None:
    """Fail unless the document has this operation and status, and the body fits its schema."""
    adapter = app.url_map.bind("localhost")
    request = response.request
    rule, _ = adapter.match(request.path, method=request.method, return_rule=True)
    with app.app_context():
        document = document_of(*[dialect.name for dialect in documented()])
    operation = document["paths"][path_of(rule.rule)][request.method.lower()]
    promised = operation["responses"]
    assert str(response.status_code) in promised or response.status_code >= 400
    answer = promised.get(str(response.status_code), promised["default"])
    content = answer.get("content")
    if content is None:
        assert not response.data
        return
    assert response.mimetype in content
    if response.is_json:
        schema = {
            **content[response.mimetype]["schema"],
            "components": document["components"],
        }
        problems = [
            f"{error.json_path}: {error.message}"
            for error in Draft202012Validator(schema).iter_errors(response.get_json())
        ]
        assert not problems, "\n".join(problems)
