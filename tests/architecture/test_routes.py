"""Every route is closed, but for those listed here."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule

from tests.fixtures.accounts import Person

# What answers without a credential. A new line here needs a reason.
OPEN = {
    # Signing in, registering, getting a lost password back.
    "POST /client/register/",
    "POST /client/login/",
    "POST /client/google-auth/",
    "POST /client/password-reset/",
    "POST /client/reset-password/<uidb64>/<token>/",
    "POST /api/v1/auth/register",
    "POST /api/v1/auth/login",
    "POST /api/v1/auth/refresh",
    "POST /api/auth/register",
    "POST /api/auth/login",
    "POST /api/auth/google",
    "GET /sign-in",
    "POST /sign-in",
    "GET /sign-in/google",
    "GET /sign-in/google/return",
    "POST /sign-in/google/return",
    "GET /sign-up",
    "POST /sign-up",
    "GET /forgot-password",
    "POST /forgot-password",
    "GET /reset-password/<uidb64>/<token>",
    "POST /reset-password/<uidb64>/<token>",
    # What the APIs are, and what the pages are made of.
    "GET /openapi.json",
    "GET /openapi/<name>.json",
    "GET /docs",
    "GET /docs/<name>",
    "GET /static/<path:filename>",
    # The signature in the link is the credential.
    "GET /files/<kind>/<leaf>",
    # The agent and the script that installs it: pip and curl have no account.
    "GET /join.sh",
    "GET /join/<filename>",
    # A published app: phones fetch it by its QR code, without signing in.
    "GET /apks/<package_name>/<version_code>.apk",
    # For load balancers and Prometheus.
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
    "GET /health",
}
PROBES = {"GET /healthz", "GET /readyz", "GET /metrics"}  # they don't look who asks
UUID = "00000000-0000-4000-8000-000000000000"
HEX = "0" * 24


def all_routes(app: Flask) -> Iterator[tuple[str, Rule]]:
    for rule in app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield method, rule


def name_of(method: str, rule: Rule) -> str:
    return f"{method} {rule.rule}"


def ask(
    client: FlaskClient, method: str, rule: Rule, headers: dict[str, str] | None = None
) -> tuple[int, str]:
    """Status and Location of a request for this route with nothing in it."""
    values = {name: sample(rule, name) for name in rule.arguments}
    built = client.application.url_map.bind("localhost").build(
        rule.endpoint, values, method=method
    )
    answer = client.open(built, method=method, json={}, headers=headers)
    status, location = answer.status_code, answer.headers.get("Location", "")
    answer.close()
    return status, location


def sample(rule: Rule, name: str) -> object:
    """A value that the route takes and that names nothing."""
    kind = type(rule._converters[name]).__name__
    return {"IntegerConverter": 999_999, "UUIDConverter": UUID}.get(kind, HEX)


def is_api(app: Flask, rule: Rule) -> bool:
    dialect = app.extensions["weft_dialects"].of_path(rule.rule)
    return dialect is not None and dialect.is_api


@pytest.fixture
def stranger(client: FlaskClient) -> FlaskClient:
    """A browser that has looked at the sign-in page and is no further."""
    page = client.get("/sign-in").get_data(as_text=True)
    found = re.search(r'name="csrf-token" content="([^"]+)"', page)
    assert found
    client.environ_base["HTTP_X_CSRFTOKEN"] = found[1]
    return client


def is_closed(stranger: FlaskClient, method: str, rule: Rule) -> bool:
    """Whether a stranger is refused, or sent to sign in."""
    status, location = ask(stranger, method, rule)
    return status == 401 or (status in {302, 303} and location.startswith("/sign-in"))


def test_a_stranger_is_asked_who_he_is_on_every_route_that_is_not_listed(
    app: Flask, stranger: FlaskClient
) -> None:
    let_in = [
        name_of(method, rule)
        for method, rule in all_routes(app)
        if name_of(method, rule) not in OPEN and not is_closed(stranger, method, rule)
    ]

    assert let_in == []


def test_what_is_listed_as_open_is_there_and_open(app: Flask, stranger: FlaskClient) -> None:
    routes = {name_of(method, rule): (method, rule) for method, rule in all_routes(app)}

    missing = sorted(OPEN - set(routes))
    closed = {name for name in OPEN & set(routes) if is_closed(stranger, *routes[name])}

    assert missing == []
    assert closed <= {"POST /sign-in"}  # no name and no password are wrong ones


def test_a_wrong_credential_is_refused_on_open_routes_too(
    app: Flask, client: FlaskClient
) -> None:
    wrong = {"Authorization": "Bearer sk-nobody-has-this-key"}
    api_routes = [
        (method, rule)
        for method, rule in all_routes(app)
        if is_api(app, rule) and name_of(method, rule) not in PROBES
    ]

    taken = [
        name_of(method, rule)
        for method, rule in api_routes
        if ask(client, method, rule, wrong)[0] != 401
    ]

    assert api_routes
    assert taken == []


def test_no_request_without_content_breaks_a_route(
    app: Flask, client: FlaskClient, admin: Person
) -> None:
    """Never a 500 for bad input: with TESTING, the bug itself would come through."""
    for method, rule in all_routes(app):
        status, _ = ask(client, method, rule, admin.headers())
        assert status < 500 or status == 503, name_of(method, rule)
