"""Every dialect says no in its own shape, and never with a page or a traceback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.core.domain.errors import RateLimited, Unavailable
from app.web.dialects import DialectMap
from tests.fixtures.accounts import Person

pytestmark = pytest.mark.one_database  # what is refused here never reaches a table


@dataclass(frozen=True)
class Shape:
    """A dialect: where it is, how it says no, and a route that takes a JSON body."""

    unknown: str
    get_only: str
    takes_json: str
    check: Callable[[Any, int], bool]
    invalid: int = 400
    media_type: int = 415


def is_torbiz(body: Any, status: int) -> bool:
    return set(body) == {"detail"} or all(isinstance(v, list) for v in body.values())


def is_aitip(body: Any, status: int) -> bool:
    return body["success"] is False and set(body["error"]) == {"code", "message"}


def is_dualquery(body: Any, status: int) -> bool:
    return set(body) == {"detail"} and isinstance(body["detail"], list) == (status == 422)


def is_openai(body: Any, status: int) -> bool:
    return set(body["error"]) == {"message", "type", "param", "code"}


def is_fabric(body: Any, status: int) -> bool:
    return body["success"] is False and body["data"] is None and bool(body["message"])


def is_problem(body: Any, status: int) -> bool:
    return body["status"] == status and {"type", "title", "detail", "code"} <= set(body)


SHAPES = {
    "torbiz": Shape("/client/x/y/z", "/inference/1/", "/client/register/", is_torbiz),
    "aitip": Shape("/api/v1/x/y", "/api/v1/auth/me", "/api/v1/auth/register", is_aitip),
    "dualquery": Shape(
        "/api/x/y", "/api/auth/me", "/api/auth/register", is_dualquery, 422, 422
    ),
    "openai": Shape("/v1/x/y", "/v1/models", "/v1/chat/completions", is_openai),
    "fabric": Shape("/api/user/x", "/api/user/points", "/api/user/insert_client", is_fabric),
}
each_dialect = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def check(answer: TestResponse, shape: Shape, status: int) -> None:
    assert answer.status_code == status
    assert answer.is_json
    assert shape.check(answer.get_json(), status), answer.get_json()


@each_dialect
def test_an_unknown_url_under_its_prefix(
    client: FlaskClient, owner: Person, shape: Shape
) -> None:
    check(client.get(shape.unknown, headers=owner.headers()), shape, 404)
    check(client.get(shape.unknown), shape, 404)


@each_dialect
def test_a_method_that_is_not_there(client: FlaskClient, owner: Person, shape: Shape) -> None:
    answer = client.open(shape.get_only, method="TRACE", headers=owner.headers())
    check(answer, shape, 405)
    assert "GET" in answer.headers["Allow"]


@each_dialect
def test_no_credential(client: FlaskClient, shape: Shape) -> None:
    check(client.get(shape.get_only), shape, 401)


@each_dialect
def test_a_body_that_is_no_json(client: FlaskClient, owner: Person, shape: Shape) -> None:
    answer = client.post(
        shape.takes_json,
        data="{broken",
        content_type="application/json",
        headers=owner.headers(),
    )
    check(answer, shape, shape.invalid)


@each_dialect
@pytest.mark.parametrize("body", ["[]", "null", "1", '"text"', "{}"])
def test_json_of_another_shape(
    client: FlaskClient, owner: Person, shape: Shape, body: str
) -> None:
    answer = client.post(
        shape.takes_json, data=body, content_type="application/json", headers=owner.headers()
    )
    check(answer, shape, shape.invalid)


@each_dialect
def test_a_body_nested_too_deep(client: FlaskClient, owner: Person, shape: Shape) -> None:
    answer = client.post(
        shape.takes_json,
        data="[" * 100_000,
        content_type="application/json",
        headers=owner.headers(),
    )
    check(answer, shape, shape.invalid)


@each_dialect
def test_another_content_type(client: FlaskClient, owner: Person, shape: Shape) -> None:
    answer = client.post(
        shape.takes_json, data="a=b", content_type="text/plain", headers=owner.headers()
    )
    check(answer, shape, shape.media_type)


@each_dialect
def test_a_body_that_is_too_long(client: FlaskClient, owner: Person, shape: Shape) -> None:
    answer = client.post(
        shape.takes_json,
        data=b'{"email": "' + b"x" * 2_000_001 + b'"}',
        content_type="application/json",
        headers=owner.headers(),
    )
    check(answer, shape, 413)


@each_dialect
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RateLimited("slow down", retry_after_seconds=7), 429),
        (Unavailable("not now", retry_after_seconds=7), 503),
    ],
    ids=["429", "503"],
)
def test_what_may_be_tried_again_says_when(
    app: Flask, shape: Shape, error: Exception, status: int
) -> None:
    """Raised before any view, where the guard of a dialect would be."""

    def refuse() -> None:
        raise error

    app.before_request_funcs.setdefault(None, []).append(refuse)
    answer = app.test_client().get(shape.get_only)
    check(answer, shape, status)
    assert answer.headers["Retry-After"] == "7"


@each_dialect
def test_a_bug_of_ours_tells_nothing_about_it(app: Flask, shape: Shape) -> None:
    def break_down() -> None:
        raise ZeroDivisionError("the secret of the house")

    app.testing = False
    app.before_request_funcs.setdefault(None, []).append(break_down)
    answer = app.test_client().get(shape.get_only)
    check(answer, shape, 500)
    assert "secret" not in answer.get_data(as_text=True)


def test_the_longest_prefix_decides_the_shape(app: Flask) -> None:
    dialects: DialectMap = app.extensions["weft_dialects"]

    def name(path: str) -> str:
        found = dialects.of_path(path)
        return found.name if found and found.is_api else ""

    assert name("/api/models/get") == "fabric"
    assert name("/api/models/6b0244f85ec98e5952a1e495") == "dualquery"
    assert name("/api/v1/datasets") == "aitip"
    assert name("/api/v10") == "dualquery"
    assert name("/v1/models") == "openai"
    assert name("/clients") == ""


def test_the_agents_api_speaks_problem_details(client: FlaskClient) -> None:
    answer = client.get("/agent/v1/nothing")
    assert answer.status_code == 404
    assert answer.mimetype == "application/problem+json"
    assert is_problem(answer.get_json(), 404)


class TestCors:
    ORIGIN = "tauri://localhost"

    @pytest.mark.parametrize("path", ["/client/list/", "/api/v1/datasets", "/v1/models"])
    def test_a_preflight_needs_no_credential(self, client: FlaskClient, path: str) -> None:
        answer = client.options(
            path,
            headers={
                "Origin": self.ORIGIN,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization, content-type",
            },
        )
        assert answer.status_code == 204
        assert answer.headers["Access-Control-Allow-Origin"] == self.ORIGIN
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        assert "Access-Control-Allow-Credentials" not in answer.headers

    def test_errors_carry_the_headers_too(self, client: FlaskClient) -> None:
        answer = client.get("/api/auth/me", headers={"Origin": self.ORIGIN})
        assert answer.status_code == 401
        assert answer.headers["Access-Control-Allow-Origin"] == self.ORIGIN
        assert "Origin" in answer.headers["Vary"]

    def test_other_origins_are_not_let_in(self, client: FlaskClient) -> None:
        for answer in (
            client.get("/api/auth/me", headers={"Origin": "https://evil.example"}),
            client.options(
                "/api/auth/me",
                headers={
                    "Origin": "https://evil.example",
                    "Access-Control-Request-Method": "GET",
                },
            ),
        ):
            assert "Access-Control-Allow-Origin" not in answer.headers
