"""Whatever is sent: a refusal in the dialect's shape, never a 500, never a page from an API."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker

from tests.security.bodies import good_bodies
from tests.security.sending import Sender, complaint, with_bodies
from tests.security.things import snapshot

DEEP = 10_000

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


# Nothing is required there: a form with nothing in it that they know changes nothing.
CLIENT = "PATCH /client/list/<int:client_id>/"
RESEARCH = "PATCH /deepresearch/<int:research_id>/"
CHANGES_NOTHING = {
    "no boundary": {CLIENT, RESEARCH},
    "a cut form": {CLIENT, RESEARCH},
    "a bad picture": {CLIENT},
}


# Werkzeug leaves the file of a part that was cut off to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("form", FORMS)
def test_a_form_breaks_nothing(
    sender: Sender, sessions: sessionmaker[Session], form: str
) -> None:
    raw, content_type = FORMS[form]
    before = snapshot(sessions)
    found, taken = [], set()
    for route in with_bodies(sender.app):
        answer = sender.send(route, data=raw, content_type=content_type)
        if answer.status < 400:
            taken.add(route.name)
        found.append(complaint(route, answer))
    gc.collect()
    assert [text for text in found if text] == []
    assert taken == CHANGES_NOTHING.get(form, set())
    after = snapshot(sessions)
    # An account that was changed in nothing was changed now.
    assert {**after, "accounts": []} == {**before, "accounts": []}
