"""The hub's routes as the security tests see them: which there are, and how to call them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from app.web.validation import RouteSpec, apis
from tests.architecture.test_routes import OPEN, PROBES
from tests.fixtures.accounts import CARRIERS, Person

EVERY_CARRIER = (*CARRIERS, "cookie")
_UUID = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True)
class Route:
    """One method of one rule."""

    method: str
    rule: Rule
    dialect: str
    is_api: bool
    spec: RouteSpec | None

    @property
    def name(self) -> str:
        return f"{self.method} {self.rule.rule}"

    @property
    def is_open(self) -> bool:
        return self.name in OPEN

    @property
    def is_probe(self) -> bool:
        return self.name in PROBES

    @property
    def stem(self) -> str | None:
        """The path up to its first parameter; None without one."""
        found = re.match(r"[^<]*<[^>]+>(?:/<[^>]+>)*", self.rule.rule)
        return found[0] if found else None

    def path(self, app: Flask, values: dict[str, Any] | None = None) -> str:
        """The path; made-up ids where none are given."""
        chosen = {name: _sample(self.rule, name) for name in self.rule.arguments}
        adapter = app.url_map.bind("localhost")
        return adapter.build(self.rule.endpoint, {**chosen, **(values or {})}, self.method)


def _sample(rule: Rule, name: str) -> object:
    kind = type(rule._converters[name]).__name__
    return {"IntegerConverter": 999_999, "UUIDConverter": _UUID}.get(kind, "0" * 24)


def all_routes(app: Flask) -> Iterator[Route]:
    """Every method of every rule, HEAD and OPTIONS left out."""
    specs = {(s.endpoint, s.method): s for api in apis.values() for s in api.routes}
    for rule in app.url_map.iter_rules():
        if rule.websocket:
            continue
        dialect = app.extensions["weft_dialects"].of_path(rule.rule)
        is_api = dialect is not None and dialect.is_api
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            spec = specs.get((rule.endpoint, method))
            yield Route(method, rule, dialect.name if dialect else "", is_api, spec)


def closed_routes(app: Flask) -> list[Route]:
    """The routes that want to know who calls."""
    return [route for route in all_routes(app) if not route.is_open]


class Knocker:
    """Calls routes as somebody, by any carrier. A cookie brings its CSRF token along."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self._browsers: dict[int, tuple[FlaskClient, str]] = {}

    def ask(
        self,
        route: Route | tuple[str, str],
        person: Person | None = None,
        carrier: str = "bearer-key",
        *,
        values: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> Answer:
        """Call a route, or (method, path)."""
        if isinstance(route, Route):
            method, path = route.method, route.path(self.app, values)
        else:
            method, path = route
        sent = dict(headers or {})
        if person is not None and carrier == "cookie":
            client, sent["X-CSRFToken"] = self._browser(person)
        elif method != "GET" and isinstance(route, Route) and not route.is_api:
            client, sent["X-CSRFToken"] = self._browser(None)
        else:
            client = self.app.test_client()
        if person is not None and carrier != "cookie":
            sent.update(person.headers(carrier))
        if not options.keys() & {"json", "data"} and method in {"POST", "PUT", "PATCH"}:
            options["json"] = {}
        return Answer.of(client.open(path, method=method, headers=sent, **options))

    def _browser(self, person: Person | None) -> tuple[FlaskClient, str]:
        """This person's browser, or a visitor's, and the token for its forms."""
        key = person.id if person else 0
        if key not in self._browsers:
            client = self.app.test_client()
            if person is not None:
                person.signed_in(client)
            self._browsers[key] = (client, csrf_token(client))
        return self._browsers[key]


def csrf_token(client: FlaskClient) -> str:
    """The token that pages hand out, to whoever is signed in and to visitors."""
    for path in ("/account", "/sign-in"):
        found = re.search(r'name="csrf-token" content="([^"]+)"', client.get(path).text)
        if found:
            return found[1]
    raise AssertionError("no page has a CSRF token")


@dataclass(frozen=True)
class Answer:
    """What came back; a stream's body is not waited for."""

    status: int
    mimetype: str
    location: str
    body: bytes
    json: Any
    headers: dict[str, str]

    @classmethod
    def of(cls, response: TestResponse) -> Answer:
        is_stream = response.is_streamed and response.mimetype == "text/event-stream"
        body = b"" if is_stream else response.get_data()
        is_json = "json" in response.mimetype and body and not is_stream
        found = cls(
            response.status_code, response.mimetype, response.headers.get("Location", ""), body,
            response.get_json(silent=True) if is_json else None, dict(response.headers),
        )  # fmt: skip
        response.close()
        return found


Ask = Callable[..., Answer]
