"""torbiz's endpoints by a table: request, status, and the exact fields and types of the answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.orm import Session, sessionmaker

from app.config import Settings
from app.core.clock import utc_now
from app.core.domain.accounts import Role
from app.core.models import KnownModel, Node
from tests.fixtures.accounts import PASSWORD, MakePerson, Person
from tests.fleet import make_node, serve
from tests.security.routes import Knocker, all_routes
from tests.security.things import MARK, Things

TABLE = json.loads((Path(__file__).parent / "torbiz.json").read_text())
_TEXTS = ("gpu_info", "cpu_name", "cpu_core", "cpu_frequency", "total_memory", "total_swap",
          "ram", "os_name", "os_version")  # fmt: skip
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


class Time:
    """An ISO 8601 moment in UTC."""


# Field → the types that it may have; the answers hold these fields and no others.
SHAPES: dict[str, dict[str, tuple[type | None, ...]]] = {
    "client": {
        "user": (dict,), "phone_no": (str, None), "user_token": (str, None),
        "user_image": (int,), "ip": (str, None), "terms_accepted": (bool, None),
        "role": (str,), "profile_image_url": (str, None), "is_gpu_provider_approved": (bool,),
        "provider_registration_date": (Time,),
    },
    "user": {"id": (int,), "username": (str,), "email": (str,)},
    "signed_in": {
        "token": (str,), "user_id": (int,), "device_token": (str,), "username": (str,),
        "email": (str,), "role": (str,), "profile_image": (str, None),
        "profile_image_url": (str, None),
    },
    "gpu": {"id": (int,), "user": (int,), **dict.fromkeys(_TEXTS, (str,))},
    "inference": {
        "id": (int,), "client": (int,), "client_username": (str,), "question_text": (str,),
        "answer_text": (str, None), "desired_model": (str,), "source": (str,),
        "created_at": (Time,),
    },
    "research": {
        "id": (int,), "client": (int,), "client_username": (str,), "question_text": (str,),
        "answer_text": (str, None), "image": (str, None), "created_at": (Time,),
        "state": (str,), "error": (str, None), "sources": (list,),
    },
    "node": {
        "node_token": (str,), "node_id": (int,), "client_id": (str,), "gpu_id": (int,),
        "model_name": (str,),
    },
    "model": {
        "model_id": (str,), "name": (str,), "description": (str,),
        "min_gpu_memory": (int, None), "is_available": (bool,),
    },
    "detail": {"detail": (str,)},
}  # fmt: skip


def is_of(value: Any, types: tuple[type | None, ...]) -> bool:
    """Whether a value has one of these types; True is no integer."""
    if value is None:
        return None in types
    if Time in types:
        return isinstance(value, str) and bool(_TIME.fullmatch(value))
    return type(value) in types


def check_shape(name: str, body: Any) -> None:
    """The body has exactly the fields of this shape, each of its type."""
    if name.startswith("["):
        assert isinstance(body, list)
        assert body, "an empty list shows no shape"
        for one in body:
            check_shape(name[1:-1], one)
    elif name == "text":
        assert isinstance(body, str)
    elif name.startswith("fields:"):
        assert set(body) == set(name.removeprefix("fields:").split(","))
        for messages in body.values():
            assert messages
            assert all(isinstance(text, str) and text for text in messages)
    else:
        shape = SHAPES[name]
        assert set(body) == set(shape)
        for field, types in shape.items():
            assert is_of(body[field], types), (field, body[field])
        if name == "client":
            check_shape("user", body["user"])


@pytest.fixture
def filled(
    make_person: MakePerson, sessions: sessionmaker[Session], settings: Settings
) -> dict[str, Any]:
    """What `$name` stands for in the table, and who calls."""
    user, admin = make_person("ann"), make_person("boss", role=Role.ADMIN)
    things = Things(sessions, user, settings.data_dir)
    node = make_node(sessions, make_person("provider").id)
    serve(sessions, node, "served-model")
    with sessions.begin() as session:
        session.add(KnownModel(name="known-model", first_seen_at=utc_now()))
        session.get_one(Node, node.id).last_beat_at = utc_now()
    machine = {name: 8 if name == "cpu_core" else f"{name} 1" for name in _TEXTS}
    return {
        "people": {"user": user, "admin": admin},
        "email": user.email, "username": user.username, "password": PASSWORD,
        "user": user.id, "admin": admin.id, "device_token": user.device_token,
        "gpu": {**machine, "user": user.id}, "question": f"{MARK} why?",
        "machine": {**machine, "user": str(user.id), "model_name": "org/model"},
        "gpu_id": things.hardware(), "inference_id": things.inference(),
        "research_id": things.research(),
    }  # fmt: skip


def fill(template: Any, values: dict[str, Any]) -> Any:
    """The template with `$name` replaced."""
    if isinstance(template, dict):
        return {key: fill(inner, values) for key, inner in template.items()}
    if isinstance(template, str):
        whole = re.fullmatch(r"\$(\w+)", template)
        if whole:
            return values[whole[1]]
        return re.sub(r"\$(\w+)", lambda found: str(values[found[1]]), template)
    return template


def test_every_call_of_the_table_is_answered_exactly(
    make_app: Callable[..., Flask], filled: dict[str, Any]
) -> None:
    """No worker runs here: research answers, as JSON, with what there is after a moment."""
    knock, wrong = Knocker(make_app(sync_wait_seconds=0.1)), []
    for method, path, who, body, status, shape in TABLE:
        person: Person | None = filled["people"].get("user" if who == "token" else who)
        sent = {"json": fill(body, filled)} if body is not None else {"data": b""}
        answer = knock.ask(
            (method, fill(path, filled)),
            person,
            "token" if who == "token" else "basic",
            headers={"Accept": "application/json"},
            **sent,
        )
        try:
            assert answer.status == status
            if shape == "nothing":
                assert answer.body == b""
            else:
                assert answer.mimetype == "application/json"
                check_shape(shape, answer.json)
        except AssertionError as error:
            wrong.append((method, path, body, answer.status, answer.body[:300], str(error)))
        if shape == "node" and answer.json:
            filled["node_token"] = answer.json.get("node_token")
    assert wrong == []


def test_the_table_has_every_endpoint_of_the_dialect(app: Flask) -> None:
    adapter = app.url_map.bind("localhost")
    asked = set()
    for method, path, *_ in TABLE:
        plain = re.sub(r"\$\w+", "1", path.partition("?")[0])
        asked.add((method, adapter.match(plain, method)[0]))
    ours = {(r.method, r.rule.endpoint) for r in all_routes(app) if r.dialect == "torbiz"}
    assert asked == ours
    assert len(ours) == 37


def test_pages_of_the_client_list_say_how_many_there_are(
    app: Flask, filled: dict[str, Any]
) -> None:
    knock = Knocker(app)
    answer = knock.ask(
        ("GET", "/client/list/?page=2&page_size=2"), filled["people"]["admin"], "basic"
    )
    assert (len(answer.json), answer.headers["X-Total-Count"]) == (1, "3")
