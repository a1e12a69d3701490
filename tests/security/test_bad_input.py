"""Whatever is sent: a refusal in the dialect's shape, never a 500, never a page from an API."""

from __future__ import annotations

import base64
import gc
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from sqlalchemy.orm import Session, sessionmaker

from tests.fixtures.accounts import Person
from tests.fleet import TestNode
from tests.security.bodies import form_fields, good_bodies
from tests.security.routes import Answer, Knocker, Route, all_routes
from tests.security.shapes import is_in_shape
from tests.security.things import MAKERS, Things, enrolment_secret

DEEP = 10_000


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


@pytest.fixture
def sender(
    make_app: Callable[..., Flask],
    admin: Person,
    owner: Person,
    things: Things,
    sessions: sessionmaker[Session],
) -> Sender:
    """Somebody with an account, an admin, a node and a token for more nodes."""
    app = make_app(sync_wait_seconds=0.1, signin_limit_per_minute=100_000)
    found = Sender(app, admin, owner, things.node(), enrolment_secret(sessions, owner))
    found.values = {
        stem: make(things) for stem, make in MAKERS.items() if not stem.startswith("/client/")
    }
    found.values["/client/list/<int:client_id>"] = {"client_id": owner.id}
    return found


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


BROKEN = {
    "cut off": b'{"a":',
    "a brace": b"{",
    "a comma too many": b'{"a":1,}',
    "single quotes": b"{'a': 1}",
    "no UTF-8": b'{"a": "\xff\xfe"}',
    "an encoded surrogate": b'{"a": "\xed\xa0\x80"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a NUL": b"\x00",
    "two values": b"{} {}",
    "an array": b"[]",
    "null": b"null",
    "a number": b"1",
    "a text": b'"x"',
    "deep arrays": b"[" * DEEP,
    "deep closed arrays": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "NaN": b"NaN",
    "a huge number": b"9" * 5000,
}


def test_a_body_that_is_no_object_is_refused(sender: Sender) -> None:
    found = []
    for what, raw in BROKEN.items():
        for route in with_bodies(sender.app):
            answer = sender.send(route, data=raw, content_type="application/json")
            # The fast door of heartbeats does not read fields that it does not know.
            is_fast = (
                what in {"no UTF-8", "an encoded surrogate"}
                and route.name == "POST /agent/v1/heartbeat"
            )
            if answer.status not in {400, 422} and not is_fast:
                found.append(f"{route.name}: {answer.status} to {what}")
            found.append(complaint(route, answer))
    assert [text for text in found if text] == []


VALUES: dict[str, bytes] = {
    "null": b"null",
    "an array": b"[]",
    "an object": b"{}",
    "nested": b"[" * DEEP + b"]" * DEEP,
    "NaN": b"NaN",
    "1e999": b"1e999",
    "2**63": str(2**63).encode(),
    "10**400": b"1" + b"0" * 400,
    "a NUL": b'"a\\u0000b"',
    "a surrogate": b'"\\ud800"',
    "blanks": b'" \\n\\t "',
    "long": b'"' + b"x" * 70_000 + b'"',
    "unicode": '"\u202e\u0661\U0001f9f5\u0000"'.encode().replace(b"\x00", b""),
}


def mutations(good: dict[str, Any], value: bytes) -> Iterator[bytes]:
    """The body with each of its fields, also inner ones, replaced by this value."""
    mark = "\ufdd0"

    def spots(node: Any, put: Any) -> Iterator[Any]:
        pairs = node.items() if isinstance(node, dict) else enumerate(node)
        for key, inner in list(pairs):
            yield put({**node, key: mark} if isinstance(node, dict) else [mark])
            if isinstance(inner, dict | list):
                yield from spots(
                    inner,
                    lambda new, key=key: put(
                        {**node, key: new} if isinstance(node, dict) else [new]
                    ),
                )

    for body in spots(good, lambda new: new):
        yield json.dumps(body, ensure_ascii=False).encode().replace(f'"{mark}"'.encode(), value)


def test_a_field_of_any_value_breaks_nothing(sender: Sender) -> None:
    bodies = good_bodies(sender.owner, node_token="wk_none", client_id=sender.node.client_id)
    found, sent = [], 0
    for value in VALUES.values():
        for route in with_bodies(sender.app):
            for raw in mutations(bodies[route.rule.endpoint], value):
                answer = sender.send(route, data=raw, content_type="application/json")
                found.append(complaint(route, answer))
                sent += 1
    assert [text for text in found if text] == []
    assert sent > 2000


def test_a_nul_is_refused_wherever_a_text_is_kept(sender: Sender) -> None:
    """PostgreSQL cannot keep it; SQLite could, and is not to differ."""
    bodies = good_bodies(sender.owner, client_id=sender.node.client_id)
    kept = []
    for route in with_bodies(sender.app):
        for raw in mutations(bodies[route.rule.endpoint], b'"a\\u0000b"'):
            answer = sender.send(route, data=raw, content_type="application/json")
            # A beat's names are cleaned before anything keeps them, by the fast door too.
            if answer.status < 400 and route.name != "POST /agent/v1/heartbeat":
                kept.append((route.name, raw))
    assert kept == []


def test_a_key_twice_is_one_value_or_a_refusal(sender: Sender) -> None:
    bodies = good_bodies(sender.owner, client_id=sender.node.client_id)
    found = []
    for route in with_bodies(sender.app):
        good = json.dumps(bodies[route.rule.endpoint])
        if good == "{}":
            continue
        raw = f'{good[:-1]}, "role": "user", "role": "admin", {good[1:]}'.encode()
        answer = sender.send(route, data=raw, content_type="application/json")
        found.append(complaint(route, answer))
    assert [text for text in found if text] == []


def test_a_body_of_three_megabytes_is_413(sender: Sender) -> None:
    raw = b'{"question_text": "' + b"x" * 3_000_000 + b'"}'
    found = []
    for route in with_bodies(sender.app):
        answer = sender.send(route, data=raw, content_type="application/json")
        if answer.status != 413:
            found.append(f"{route.name}: {answer.status}")
        found.append(complaint(route, answer))
    assert [text for text in found if text] == []


CONTENT_TYPES = ("text/plain", "application/xml", "image/png", "json", "multipart/mixed", ";")


def test_another_content_type_is_said_so(sender: Sender) -> None:
    bodies = good_bodies(sender.owner, client_id=sender.node.client_id)
    found = []
    for content_type in CONTENT_TYPES:
        for route in with_bodies(sender.app):
            raw = json.dumps(bodies[route.rule.endpoint]).encode() + b" "
            answer = sender.send(route, data=raw, content_type=content_type)
            if answer.status != (422 if route.dialect == "dualquery" else 415):
                found.append(f"{route.name}: {answer.status} to {content_type}")
            found.append(complaint(route, answer))
    assert [text for text in found if text] == []


FORMS = {
    "urlencoded": (b"a=b&question_text=%00&client=%ff", "application/x-www-form-urlencoded"),
    "no boundary": (b"--x\r\n", "multipart/form-data"),
    "a cut form": (
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a\x00.png"\r\n\r\n\x89P',
        "multipart/form-data; boundary=x",
    ),
    "a bad picture": (
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="../a.png"\r\n'
        b"Content-Type: image/png\r\n\r\nno picture\r\n--x\r\n"
        b'Content-Disposition: form-data; name="question_text"\r\n\r\nWhy?\r\n--x--\r\n',
        "multipart/form-data; boundary=x",
    ),
    "a NUL in a field": (
        b'--x\r\nContent-Disposition: form-data; name="question_text"\r\n\r\na\x00b\r\n--x--\r\n',
        "multipart/form-data; boundary=x",
    ),
    "many parts": (
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 3000 + b"--x--\r\n",
        "multipart/form-data; boundary=x",
    ),
}


# Werkzeug leaves the file of a part that was cut off to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(("raw", "content_type"), FORMS.values(), ids=FORMS)
def test_a_form_breaks_nothing(sender: Sender, raw: bytes, content_type: str) -> None:
    found = []
    for route in with_bodies(sender.app):
        answer = sender.send(route, data=raw, content_type=content_type)
        if answer.status < 400:
            found.append(f"{route.name}: {answer.status}")
        found.append(complaint(route, answer))
    # Where nothing is required, a form with nothing in it that we know changes nothing.
    lenient = ("PATCH", "regenerate")
    gc.collect()
    assert [t for t in found if t and not any(word in t for word in lenient)] == []


# ---- Paths, queries, headers -----------------------------------------------------------

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
    "0", "-1", str(2**31), str(2**63), str(10**30), "%C2%B2", "1.5", "NaN", "", "%00", "%ff",
    "%ed%a0%80", "[]", "x" * 3000, "%27%20OR%201=1--", "0000-00-00", "9999-12-31", "0001-01-01",
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
        for number in (10_000_000, 2**31, 2**53, 2**63 - 1, 2**63, 10**30):
            for query in (f"page={number}&page_size=100", f"page={number}", f"before={number}"):
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
