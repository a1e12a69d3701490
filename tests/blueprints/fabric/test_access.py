"""fabric: who may call which route."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from app.blueprints.fabric.api import api
from tests import fleet
from tests.blueprints.fabric.conftest import ALPHA, data_of
from tests.fixtures.accounts import CARRIERS, Person

Nodes = dict[str, fleet.TestNode]
# Every route with a good request; `user_id` is filled in.
REQUESTS: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/api/user/insert_client"): {"client_id": "c3" * 16, "client_status": "online",
                                          "name": "new"},
    ("GET", "/api/user/client_list"): {},
    ("GET", "/api/user/client_device_detail"): {"client_id": ALPHA},
    ("POST", "/api/user/edit_client_info"): {"client_id": ALPHA, "name": "other"},
    ("GET", "/api/user/client_status_list"): {},
    ("GET", "/api/user/client_stat"): {},
    ("GET", "/api/user/client_monitor"): {},
    ("GET", "/api/user/client_health"): {},
    ("GET", "/api/user/model_download_progress"): {"client_id": ALPHA},
    ("GET", "/api/user/points"): {},
    ("POST", "/api/models/insert"): {"name": "m", "version": "1", "version_code": 1,
                                     "engine_type": 1},
    ("GET", "/api/models/get"): {},
    ("POST", "/api/apk/upsert"): {"package_name": "p", "version_name": "1", "version_code": 1,
                                  "download_url": "https://example.org/a.apk"},
    ("GET", "/api/apk/get"): {"package_name": "p", "version_code": 1},
    ("GET", "/api/apk/list"): {},
}  # fmt: skip
ADMINS_ALONE = {("POST", "/api/models/insert"), ("POST", "/api/apk/upsert")}
SHARED = {
    ("GET", "/api/models/get"), ("GET", "/api/apk/get"), ("GET", "/api/apk/list"),
}  # fmt: skip
ROUTES = sorted(REQUESTS)


@pytest.fixture
def nodes(sessions: sessionmaker[Session], owner: Person) -> Nodes:
    """One node; who may ask does not depend on what it has done."""
    return {"alpha": fleet.make_node(sessions, owner.id, "Alpha_1", client_id=ALPHA)}


def call(client: FlaskClient, route: tuple[str, str], user_id: int, **extra: Any) -> Any:
    method, path = route
    values = {"user_id": str(user_id), **REQUESTS[route]}
    where = {"json": values} if method == "POST" else {"query_string": values}
    return client.open(path, method=method, **where, **extra)


def test_all_fifteen_routes_are_here() -> None:
    assert {(spec.method, spec.rule) for spec in api.routes} == set(REQUESTS)
    assert len(REQUESTS) == 15


@pytest.mark.parametrize("route", ROUTES)
class TestEveryRoute:
    def test_needs_an_account(
        self, client: FlaskClient, nodes: Nodes, owner: Person, route: tuple[str, str]
    ) -> None:
        data_of(call(client, route, owner.id), 401)
        wrong = {"Authorization": "Bearer sk-wrong"}
        data_of(call(client, route, owner.id, headers=wrong), 401)

    @pytest.mark.parametrize("carrier", CARRIERS)
    def test_opens_for_its_owner_by_every_carrier(
        self, client: FlaskClient, nodes: Nodes, owner: Person, route: tuple[str, str],
        carrier: str,
    ) -> None:  # fmt: skip
        expected = 403 if route in ADMINS_ALONE else 200
        data_of(call(client, route, owner.id, headers=owner.headers(carrier)), expected)

    def test_opens_for_an_admin(
        self, client: FlaskClient, nodes: Nodes, owner: Person, admin: Person,
        route: tuple[str, str],
    ) -> None:  # fmt: skip
        data_of(call(client, route, owner.id, headers=admin.headers()))

    def test_is_closed_to_others(
        self, client: FlaskClient, nodes: Nodes, owner: Person, outsider: Person,
        route: tuple[str, str],
    ) -> None:  # fmt: skip
        answer = call(client, route, owner.id, headers=outsider.headers())
        if route in SHARED:
            expected = 200
        elif route[1].endswith("model_download_progress"):
            expected = 404
        else:
            expected = 403
        data_of(answer, expected)

    def test_refuses_two_credentials(
        self, client: FlaskClient, nodes: Nodes, owner: Person, route: tuple[str, str]
    ) -> None:
        headers = {**owner.headers("basic"), **owner.headers("x-api-key")}
        data_of(call(client, route, owner.id, headers=headers), 400)

    def test_answers_other_methods_in_its_shape(
        self, client: FlaskClient, owner: Person, route: tuple[str, str]
    ) -> None:
        answer = client.delete(route[1], headers=owner.headers())
        data_of(answer, 405)


class TestTrustedNetworks:
    @pytest.fixture
    def trusting(self, make_app: Callable[..., Flask]) -> FlaskClient:
        app = make_app(fabric_trusted_networks=(ip_network("192.168.7.0/24"),))
        return app.test_client()

    @pytest.mark.parametrize("route", ROUTES)
    def test_a_peer_there_is_taken_as_an_admin(
        self, trusting: FlaskClient, nodes: Nodes, owner: Person, route: tuple[str, str]
    ) -> None:
        peer = {"REMOTE_ADDR": "192.168.7.9"}
        data_of(call(trusting, route, owner.id, environ_base=peer))

    def test_a_peer_elsewhere_is_not(self, trusting: FlaskClient, owner: Person) -> None:
        for address in ("192.168.8.9", "::1", "unknown"):
            answer = call(
                trusting, ("GET", "/api/user/client_list"), owner.id,
                environ_base={"REMOTE_ADDR": address},
            )  # fmt: skip
            data_of(answer, 401)

    def test_a_header_does_not_make_a_peer(self, trusting: FlaskClient, owner: Person) -> None:
        answer = call(
            trusting, ("GET", "/api/user/client_list"), owner.id,
            headers={"X-Forwarded-For": "192.168.7.9"},
        )  # fmt: skip
        data_of(answer, 401)

    def test_a_wrong_credential_is_refused_there_too(
        self, trusting: FlaskClient, owner: Person
    ) -> None:
        answer = call(
            trusting, ("GET", "/api/user/client_list"), owner.id,
            headers={"Authorization": "Bearer wrong"},
            environ_base={"REMOTE_ADDR": "192.168.7.9"},
        )  # fmt: skip
        data_of(answer, 401)

    def test_other_dialects_stay_closed(self, trusting: FlaskClient) -> None:
        peer = {"REMOTE_ADDR": "192.168.7.9"}
        assert trusting.get("/client/list/", environ_base=peer).status_code == 401
