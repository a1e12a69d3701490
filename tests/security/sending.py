"""Somebody who sends anything to any route, and what is wrong with an answer to nonsense."""

from __future__ import annotations

from typing import Any

from flask import Flask

from tests.fixtures.accounts import Person
from tests.fleet import TestNode
from tests.security.routes import Answer, Knocker, Route, all_routes
from tests.security.shapes import is_in_shape


class Sender:
    """Sends anything to any route, as somebody whom it lets in."""

    def __init__(
        self, app: Flask, admin: Person, owner: Person, node: TestNode, enrolment: str
    ) -> None:
        app.testing = False  # a bug of ours is a 500 here, not the test's exception
        self.app = app
        self.owner = owner
        self.admin = admin
        self.knock = Knocker(app)
        self.node = node
        self.enrolment = {"Authorization": f"Bearer {enrolment}"}
        self.values: dict[str, dict[str, Any]] = {}

    def send(self, route: Route, path: str | None = None, **options: Any) -> Answer:
        # Research then answers with what there is; its text would flow until it is over.
        quick = {"Accept": "application/json"} if "research" in route.rule.endpoint else {}
        headers = {**quick, **options.pop("headers", {})}
        where = (route.method, path or route.path(self.app, self.values.get(route.stem or "")))
        if route.name == "POST /agent/v1/enrol":
            return self.knock.ask(where, headers={**self.enrolment, **headers}, **options)
        if route.dialect == "agent":
            return self.knock.ask(where, headers={**self.node.headers, **headers}, **options)
        if route.is_open:
            return self.knock.ask(where, headers=headers, **options)
        who = self.admin if route.rule.endpoint in _ADMINS else self.owner
        carrier = "bearer-key" if route.is_api else "cookie"
        return self.knock.ask(where, who, carrier, headers=headers, **options)


_ADMINS = {"torbiz.create_client_post", "fabric.insert_model_post", "fabric.upsert_apk_post"}


def with_bodies(app: Flask) -> list[Route]:
    return [route for route in all_routes(app) if route.spec is not None and route.spec.body]


def complaint(route: Route, answer: Answer) -> str | None:
    """What is wrong with an answer to nonsense; None when nothing is."""
    if answer.status >= 500 and answer.status != 503:
        return f"{route.name}: {answer.status}"
    if route.is_api and "html" in answer.mimetype:
        return f"{route.name}: HTML with {answer.status}"
    if route.is_api and answer.status >= 400 and not is_in_shape(route.dialect, answer):
        return f"{route.name}: {answer.status} {answer.body[:200]!r}"
    return None
