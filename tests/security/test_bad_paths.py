"""Paths, queries and headers of any kind: never a 500, never a page from an API."""

from __future__ import annotations

import base64
import itertools
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask

from tests.fixtures.accounts import Person
from tests.security.bodies import form_fields, good_bodies
from tests.security.routes import Answer, all_routes
from tests.security.sending import Sender, complaint
from tests.security.shapes import is_in_shape

IDS = (
    "0", "-1", "00", "1e3", "1.0", "+1", " 1", str(2**31), str(2**63 - 1), str(2**63), str(2**64),
    str(10**30), "9" * 5000, "\u0661\u0662", "\u00b2", "\uff11", "NaN", "null", "undefined", "{id}",
    "\x00", "a\x00b", "\n", "%", "%00", "\ud7ff", "\U0001f9f5", "'", "' OR '1'='1", "x" * 5000,
    "0" * 24, "f" * 32, "0x" + "f" * 32, "00000000-0000-4000-8000-000000000000",
)  # fmt: skip


def test_an_id_at_the_edge_is_nobodys(sender: Sender) -> None:
    for wanted in IDS:
        import re

        bodies, forms = good_bodies(sender.owner), form_fields(sender.owner)
        found = []
        for route in all_routes(sender.app):
            if not route.rule.arguments or route.is_open:
                continue
            path = re.sub(r"<[^>]+>", quote(wanted, safe=""), route.rule.rule)
            if route.is_api and route.rule.endpoint in bodies:
                sent: dict[str, Any] = {"json": bodies[route.rule.endpoint]}
            else:
                sent = {"data": forms.get(route.rule.endpoint, {})}
            answer = sender.send(route, path, **sent)
            # 308: a path of two slashes; 405: another rule's path without this method.
            if answer.status not in {404, 405, 308}:
                found.append(f"{route.name}: {answer.status}")
            found.append(complaint(route, answer))
        assert [text for text in found if text] == []


def test_open_routes_too_take_any_text_in_their_path(sender: Sender) -> None:
    import re

    found = []
    for route in all_routes(sender.app):
        if not route.rule.arguments or not route.is_open:
            continue
        for wanted in IDS:
            path = re.sub(r"<[^>]+>", quote(wanted, safe=""), route.rule.rule)
            answer = sender.send(route, path)
            if answer.status < 300 or answer.status >= 500:
                found.append(f"{route.name} {wanted!r}: {answer.status}")
            found.append(complaint(route, answer))
    assert [text for text in found if text] == []


QUERIES = (
    "-1", str(2**31), str(10**30), "%C2%B2", "NaN", "", "%00", "%ed%a0%80",
    "%27%20OR%201=1--", "0000-00-00", "9999-12-31", "0001-01-01",
)  # fmt: skip
# What pages read of their queries.
PAGE_NAMES = ("page", "before", "state", "whose", "model", "part", "next", "done", "days", "q",
              "start", "end", "limit", "node", "format")  # fmt: skip


def test_a_query_of_any_value_breaks_nothing(sender: Sender) -> None:
    for value in QUERIES:
        user = sender.owner.id
        found = []
        for route in all_routes(sender.app):
            if route.method != "GET" or route.dialect == "agent" or route.is_probe:
                continue
            schema = route.spec.query if route.spec else None
            names = list(schema.model_fields) if schema else []
            if not route.is_api:
                names = list(PAGE_NAMES)
            path = route.path(sender.app, sender.values.get(route.stem or ""))
            own = f"user_id={user}&client_id={sender.node.client_id}"
            queries = [f"{name}={value}" for name in names if name != "user_id"]
            if not route.is_api:
                queries = ["&".join(queries)]
            for query in queries:
                base = (
                    ""
                    if query.startswith("client_id=")
                    else f"&client_id={sender.node.client_id}"
                )
                asked = f"{path}?{query}&user_id={user}{base}" if schema else f"{path}?{query}"
                found.append(complaint(route, sender.send(route, asked)))
            if "user_id" in names:
                found.append(
                    complaint(route, sender.send(route, f"{path}?{own}&user_id={value}"))
                )
        assert [text for text in found if text] == []


def test_a_page_past_the_end_is_empty_or_refused(sender: Sender) -> None:
    """Offsets beyond what a database counts to."""
    paths = [
        (route, route.path(sender.app))
        for route in all_routes(sender.app)
        if route.method == "GET" and not route.rule.arguments
        and ((route.spec and route.spec.query and "page" in route.spec.query.model_fields)
             or not route.is_api)
    ]  # fmt: skip
    found = []
    for route, path in paths:
        for number in (10_000_000, 2**31, 2**63 - 1, 10**30):
            for query in (f"page={number}&page_size=100", f"page={number}&before={number}"):
                asked = f"{path}?{query}&user_id={sender.owner.id}"
                found.append(complaint(route, sender.send(route, asked)))
    assert [text for text in found if text] == []


def basic(raw: bytes) -> str:
    return "Basic " + base64.b64encode(raw).decode()


AUTHORIZATIONS = (
    "", " ", "Basic", "Basic ", "Basic \x00", basic(b""), basic(b":"), basic(b"nocolon"),
    basic(b"a\x00b:c\x00d"), basic(b"\xff\xfe:\xff"), basic(b"x" * 100_000 + b":y"),
    basic("\u202e:\U0001f9f5".encode()), "Token", "Token \x01\x02", "Bearer \x7f", "Bearer \xff",
    "Bearer " + "x" * 100_000, "Bearer a.b.c", "Bearer ..", "Bearer é.é.é", "Bearer a b c",
    "Digest x", "Negotiate", "=", ",", "Bearer,", "\x00", "Basic\ta", "bearer\x0bx", "Token ²",
    'Basic realm="x"', "Bearer eyJhbGciOiJIUzI1NiJ9.bnVsbA.x", "Bearer W10.W10.W10",
)  # fmt: skip


def test_noise_in_the_credential_is_a_401(app: Flask) -> None:
    for text in AUTHORIZATIONS:
        app.testing = False
        paths = {"torbiz": "/client/list/", "aitip": "/api/v1/auth/me", "dualquery": "/api/auth/me",
                 "fabric": "/api/user/client_stat?user_id=1", "openai": "/v1/models",
                 "agent": "/agent/v1/desired"}  # fmt: skip
        for dialect, path in paths.items():
            for name in ("HTTP_AUTHORIZATION", "HTTP_X_API_KEY"):
                answer = Answer.of(app.test_client().get(path, environ_overrides={name: text}))
                assert answer.status == 401, (dialect, name, answer)
                assert is_in_shape(dialect, answer), (dialect, answer)


HEADERS = {
    "HTTP_ACCEPT": ("\x00", "*/*;q=x", ",,,;;;", "text/html;q=NaN", "x" * 10_000),
    "HTTP_COOKIE": ("weft=\x00", "weft=" + "x" * 5000, ";;;=", "weft=e30.e30.e30"),
    "HTTP_USER_AGENT": ("a\x00b", "\xff\xfe", "x" * 5000),
    "HTTP_ORIGIN": ("\x00", "null", "\xff", "http://[::1"),
    "HTTP_RANGE": ("bytes=", "bytes=9999999999999999999-", "x=1-2"),
    "HTTP_IF_NONE_MATCH": ('"\x00', "*", "W/"),
    "HTTP_X_FORWARDED_FOR": ("\x00", "1.2.3.4, \xff", "x" * 5000),
    "HTTP_HX_REQUEST": ("\x00",),
    "CONTENT_TYPE": ("\x00", "application/json; charset=no-such", "application/json;;;=",),
    "CONTENT_LENGTH": ("-1", "x", "\u00b2", "1" * 100, ""),
    "HTTP_LAST_EVENT_ID": ("x", "-1", "1" * 100, "\u00b2", "1.5", "\x00", "0x1", " "),
    "HTTP_HOST": ("a\x00b", "[::1", "localhost:99999999", "\xff"),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_noise_in_a_header_breaks_nothing(sender: Sender, name: str) -> None:
    chosen = {
        "GET /client/list/", "POST /client/register/", "POST /client/login/", "GET /inference/",
        "GET /api/v1/auth/me", "POST /api/v1/api-keys", "GET /api/auth/me", "GET /v1/models",
        "GET /api/user/client_list", "GET /v1/runs/<run_id>/events", "POST /agent/v1/heartbeat",
        "GET /runs/<run_id>/events", "GET /", "POST /sign-in", "GET /runs", "GET /docs",
        "GET /deepresearch/", "POST /deepresearch/",
    }  # fmt: skip
    bodies = good_bodies(sender.owner)
    found, seen = [], 0
    for route in all_routes(sender.app):
        if route.name not in chosen:
            continue
        seen += 1
        for text in HEADERS[name]:
            sent: dict[str, Any] = {"environ_overrides": {name: text}}
            if route.method == "POST":
                sent["json"] = bodies.get(route.rule.endpoint, {})
            found.append(complaint(route, sender.send(route, **sent)))
    assert [text for text in found if text] == []
    assert seen == len(chosen)


def test_a_run_is_read_from_its_start_when_the_last_seen_number_is_nonsense(
    sender: Sender,
) -> None:
    run = sender.values["/v1/runs/<run_id>"]["run_id"]
    headers = sender.owner.headers()
    whole = sender.app.test_client().get(f"/v1/runs/{run}/events", headers=headers).data
    assert b"because" in whole
    for text in HEADERS["HTTP_LAST_EVENT_ID"]:
        sent = {"HTTP_LAST_EVENT_ID": text}
        answer = sender.app.test_client().get(
            f"/v1/runs/{run}/events", headers=headers, environ_overrides=sent
        )
        assert answer.data == whole, text


def test_a_browser_with_an_odd_name_may_sign_in(app: Flask, owner: Person) -> None:
    """Its name is kept with the session."""
    from tests.security.routes import csrf_token

    for agent in ("a\x00b", "\xff\xfe", "x" * 5000, ""):
        client = app.test_client()
        token = csrf_token(client)
        answer = client.post(
            "/sign-in",
            data={"csrf_token": token, "login": owner.username, "password": owner.password},
            environ_overrides={"HTTP_USER_AGENT": agent},
        )
        assert answer.status_code == 303, agent
        assert client.get("/account").status_code == 200


NASTY_FIELDS = ("", " ", "a\x00b", "x" * 100_000, "\ud7ff\U0001f9f5", "-1", str(10**30), "²",
                "' OR 1=1", "../../x", "<script>alert(1)</script>")  # fmt: skip


def test_a_form_of_the_dashboard_takes_any_text(sender: Sender) -> None:
    found = []
    forms = form_fields(sender.owner)
    ends = {"dashboard.sign_out", "dashboard.sign_out_everywhere", "dashboard.remove_node"}
    for route in all_routes(sender.app):
        fields = forms.get(route.rule.endpoint, {})
        if route.is_api or route.method != "POST" or route.rule.endpoint in ends or not fields:
            continue
        for name, value in itertools.product(fields, NASTY_FIELDS):
            _, token = sender.knock._browser(None)
            answer = sender.send(
                route, data={**fields, name: value},
                headers={"X-CSRFToken": token} if route.is_open else {},
            )  # fmt: skip
            found.append(complaint(route, answer))
    assert [text for text in found if text] == []
