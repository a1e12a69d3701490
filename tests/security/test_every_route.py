"""Every route of every dialect: who may call it, by every carrier, and whose things it shows."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.orm import Session, sessionmaker

from tests.fixtures.accounts import Person
from tests.security.bodies import form_fields, good_bodies
from tests.security.routes import (
    EVERY_CARRIER,
    Answer,
    Knocker,
    Route,
    all_routes,
    closed_routes,
)
from tests.security.shapes import is_in_shape
from tests.security.things import MAKERS, MARK, NOBODYS, Things, snapshot


def with_ids(app: Flask) -> list[Route]:
    """The routes whose paths name somebody's thing."""
    return [route for route in all_routes(app) if route.stem and route.stem not in NOBODYS]


def body_of(route: Route, caller: Person) -> dict[str, Any]:
    """A good request of this caller's, as far as its body goes."""
    if route.is_api:
        body = good_bodies(caller).get(route.rule.endpoint)
        return {"json": body} if body is not None else {}
    fields = form_fields(caller).get(route.rule.endpoint)
    return {"data": fields} if fields is not None and route.method == "POST" else {}


def test_every_id_in_a_path_is_in_the_table_of_things(app: Flask) -> None:
    stems = {route.stem for route in all_routes(app) if route.stem}
    unknown = stems - set(MAKERS) - set(NOBODYS)
    assert unknown == set(), "say in tests/security/things.py what these ids name"


def test_every_body_is_in_the_table_of_bodies(app: Flask, owner: Person) -> None:
    api, forms = good_bodies(owner), form_fields(owner)
    unknown = {
        route.rule.endpoint
        for route in all_routes(app)
        if (route.spec and route.spec.body and route.rule.endpoint not in api)
        or (not route.is_api and route.method == "POST" and route.rule.endpoint not in forms)
    }
    assert unknown == set(), "say in tests/security/bodies.py what these take"


# ---- Who is let in at all ----------------------------------------------------------


def refused(route: Route, answer: Answer) -> bool:
    """Whether a caller without a (good) credential is refused as the dialect does it."""
    if route.is_api:
        return answer.status == 401 and is_in_shape(route.dialect, answer)
    to_sign_in = answer.status == 303 and answer.location.startswith("/sign-in")
    return answer.status == 401 or to_sign_in


def test_without_a_credential_every_closed_route_refuses_in_its_dialect(
    app: Flask, knock: Knocker
) -> None:
    let_in = [
        (route.name, answer.status)
        for route in closed_routes(app)
        if not refused(route, answer := knock.ask(route))
    ]
    assert let_in == []


def wrong(carrier: str, number: int) -> dict[str, str]:
    """A credential of this kind that is nobody's."""
    pair = base64.b64encode(f"nobody-{number}@example.org:wrong".encode()).decode()
    return {
        "basic": {"Authorization": f"Basic {pair}"},
        "token": {"Authorization": "Token wt_" + "x" * 48},
        "bearer-token": {"Authorization": "Bearer wt_" + "x" * 48},
        "bearer-key": {"Authorization": "Bearer sk-" + "x" * 48},
        "bearer-jwt": {"Authorization": "Bearer eyJhbGciOiJIUzI1NiJ9.e30.x"},
        "x-api-key": {"X-API-Key": "sk-" + "x" * 48},
        "cookie": {"Cookie": "weft=eyJ3ZWZ0X3Nlc3Npb24iOiJ3c18ifQ.aaaa.bbbb"},
    }[carrier]


@pytest.mark.parametrize("carrier", EVERY_CARRIER)
def test_a_wrong_credential_is_refused_everywhere(make_app: Any, carrier: str) -> None:
    app = make_app(signin_limit_per_minute=1000)
    knock, let_in = Knocker(app), []
    for number, route in enumerate(closed_routes(app)):
        answer = knock.ask(route, headers=wrong(carrier, number))
        if not refused(route, answer):
            let_in.append((route.name, answer.status))
    assert let_in == []


def test_two_carriers_at_once_are_refused_everywhere(
    app: Flask, knock: Knocker, owner: Person, outsider: Person
) -> None:
    pairs = [
        {**owner.headers("bearer-jwt"), **owner.headers("x-api-key")},
        {**owner.headers("basic"), **outsider.headers("x-api-key")},
        {"Authorization": f"Token {owner.token}, Bearer {outsider.token}"},
    ]
    taken = [
        (route.name, answer.status)
        for route in all_routes(app)
        if (route.is_api and not route.is_probe) or route in closed_routes(app)
        for pair in pairs
        if (answer := knock.ask(route, headers=pair)).status != 400
    ]
    assert taken == []


@pytest.mark.parametrize("carrier", EVERY_CARRIER)
def test_a_good_credential_opens_every_room_by_every_carrier(
    app: Flask, knock: Knocker, owner: Person, carrier: str
) -> None:
    shut = [
        (route.name, answer.status)
        for route in closed_routes(app)
        if route.method == "GET" and route.dialect != "agent"
        if (answer := knock.ask(route, owner, carrier)).status in {302, 303, 401}
        or answer.status >= 500
    ]
    assert shut == []


# ---- Whose things are they -----------------------------------------------------------


def test_nothing_of_a_strangers_can_be_reached_by_its_id(
    app: Flask,
    knock: Knocker,
    sessions: sessionmaker[Session],
    things: Things,
    outsider: Person,
) -> None:
    """Every carrier, every method; and nothing in any table is another afterwards."""
    made: dict[str, dict[str, Any]] = {}
    for route in with_ids(app):
        assert route.stem is not None
        if route.stem not in made:
            made[route.stem] = MAKERS[route.stem](things)
    before = snapshot(sessions)
    reached = []
    for route in with_ids(app):
        values = made[route.stem or ""]
        routes: list[Any] = [route]
        if route.method == "GET":
            routes.append(("HEAD", route.path(app, values)))
        for carrier in EVERY_CARRIER:
            for asked in routes:
                answer = knock.ask(
                    asked, outsider, carrier, values=values, **body_of(route, outsider)
                )
                if answer.status != 404 or MARK.encode() in answer.body:
                    reached.append((asked if asked != route else route.name, carrier, answer))
    assert reached == []
    assert snapshot(sessions) == before


def test_the_owner_reaches_each_of_his_things(
    app: Flask, knock: Knocker, things: Things, owner: Person
) -> None:
    """So that the 404 of others says something."""
    lost = []
    for route in sorted(with_ids(app), key=lambda r: r.name.startswith("DELETE /client/")):
        assert route.stem is not None
        values = MAKERS[route.stem](things)
        answer = knock.ask(
            route, owner, "bearer-key" if route.is_api else "cookie", values=values,
            **body_of(route, owner),
        )  # fmt: skip
        if answer.status in {401, 403, 404, 405} or answer.status in {500, 502}:
            lost.append((route.name, answer.status, answer.body[:200]))
    assert lost == []


def test_no_list_and_no_page_shows_a_strangers_things(
    app: Flask, knock: Knocker, things: Things, owner: Person, outsider: Person
) -> None:
    things.everything()
    routes = [r for r in all_routes(app) if r.method == "GET" and not r.rule.arguments]
    shown = [
        (route.name, carrier)
        for route in routes
        for carrier in ("bearer-key", "cookie")
        if MARK.encode() in knock.ask(route, outsider, carrier).body
    ]
    assert shown == []
    seen = {r.name for r in routes if MARK.encode() in knock.ask(r, owner, "cookie").body}
    # And the owner sees them, so that the check above could fail.
    assert {"GET /gpu/list/", "GET /inference/", "GET /deepresearch/", "GET /nodes", "GET /keys",
            "GET /client/list/", "GET /api/v1/api-keys", "GET /api/v1/datasets", "GET /api/datasets",
            "GET /data", "GET /"} <= seen  # fmt: skip


def test_a_strangers_id_in_a_query_opens_nothing(
    app: Flask, knock: Knocker, things: Things, owner: Person, outsider: Person
) -> None:
    """403 for somebody else's account, 404 for somebody else's node."""
    things.everything()
    node = things.serving_node()
    ids: dict[str, Any] = {
        "user_id": owner.id, "user": owner.id, "client": owner.id, "account_id": owner.id,
        "client_id": node.client_id, "node_id": node.id, "name": MARK, "client_name": MARK,
    }  # fmt: skip
    own = {**ids, "user_id": outsider.id, "user": outsider.id, "client": outsider.id}
    opened, refusals = [], 0
    for route in all_routes(app):
        if route.method != "GET" or route.spec is None or route.spec.query is None:
            continue
        for sent in (ids, own):
            chosen = {k: v for k, v in sent.items() if k in route.spec.query.model_fields}
            answer = knock.ask(route, outsider, query_string=chosen)
            refusals += answer.status in {403, 404}
            if MARK.encode() in answer.body or node.client_id.encode() in answer.body:
                opened.append((route.name, answer.status))
    assert opened == []
    assert refusals > 5


def test_a_strangers_id_in_a_body_is_403_and_changes_nothing(
    app: Flask,
    knock: Knocker,
    sessions: sessionmaker[Session],
    things: Things,
    owner: Person,
    outsider: Person,
) -> None:
    node = things.serving_node()
    theirs = good_bodies(owner, client_id=node.client_id)
    asked = [
        "torbiz.create_gpu_post", "torbiz.create_inference_post", "torbiz.stream_inference_post",
        "torbiz.create_research_post", "torbiz.register_model_post",
        "fabric.insert_client_post", "fabric.edit_client_info_post",
    ]  # fmt: skip
    mine = {"user_id": str(outsider.id)}
    routes = {route.rule.endpoint: route for route in all_routes(app)}
    before = snapshot(sessions)
    for endpoint in asked:
        answer = knock.ask(routes[endpoint], outsider, json=theirs[endpoint])
        assert answer.status == 403, (endpoint, answer)
    for endpoint, status in (("insert_client", 403), ("edit_client_info", 404)):
        name = f"fabric.{endpoint}_post"
        answer = knock.ask(routes[name], outsider, json={**theirs[name], **mine})
        assert answer.status == status, (endpoint, answer)
    assert snapshot(sessions) == before


ADMINS = {
    "torbiz.create_client_post", "fabric.insert_model_post", "fabric.upsert_apk_post",
    "dashboard.upload_apk", "dashboard.set_apk_active", "dashboard.save_model",
    "dashboard.set_model_active",
}  # fmt: skip


def test_what_is_an_admins_is_closed_to_all_others(
    app: Flask,
    knock: Knocker,
    sessions: sessionmaker[Session],
    things: Things,
    outsider: Person,
) -> None:
    """Nobody else's, whatever the carrier; by name here, or by the path `/admin`."""
    things.everything()
    node = things.node()
    values = {"client_id": node.client_id, "account_id": things.owner.id}
    routes = [
        route
        for route in all_routes(app)
        if route.rule.endpoint in ADMINS or route.rule.rule.startswith("/admin")
    ]
    before = snapshot(sessions)
    opened = [
        (route.name, carrier, answer.status)
        for route in routes
        for carrier in EVERY_CARRIER
        if (
            answer := knock.ask(
                route,
                outsider,
                carrier,
                values={k: v for k, v in values.items() if k in route.rule.arguments},
                **body_of(route, outsider),
            )
        ).status
        not in {403, 404}
        or MARK.encode() in answer.body
    ]
    assert opened == []
    assert {route.rule.endpoint for route in routes} >= ADMINS
    assert snapshot(sessions) == before
