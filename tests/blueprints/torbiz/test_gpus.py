"""torbiz's GPU list: texts as they were given, one's own alone."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.models import HardwareRecord, Node
from app.core.services import accounts
from app.core.services.enrolment import NewNode, enrol_node
from tests.fixtures.accounts import Person
from tests.openapi import assert_matches_openapi

TEXTS = {
    "gpu_info": "NVIDIA RTX 4090 (24.0 GB VRAM)",
    "cpu_name": "AMD Ryzen 9 5950X",
    "cpu_core": "16",
    "cpu_frequency": "3.4GHz",
    "total_memory": "64GB",
    "total_swap": "32GB",
    "ram": "64GB",
    "os_name": "Windows",
    "os_version": "11",
}


def create(client: FlaskClient, person: Person, **changes: Any) -> Any:
    body = {**TEXTS, "user": person.id, **changes}
    return client.post("/gpu/list/", headers=person.headers(), json=body)


def test_stores_texts_as_they_were_given(
    app: Flask, client: FlaskClient, owner: Person
) -> None:
    answer = create(client, owner)
    assert answer.status_code == 201
    body = answer.get_json()
    assert body == {"id": body["id"], "user": owner.id, **TEXTS}
    assert isinstance(body["id"], int)
    assert_matches_openapi(app, answer)
    shown = client.get(f"/gpu/list/{body['id']}/", headers=owner.headers())
    assert shown.get_json() == body
    assert client.get("/gpu/list/", headers=owner.headers()).get_json() == [body]


def test_takes_numbers_for_texts_and_text_for_the_user(
    client: FlaskClient, owner: Person
) -> None:
    body = create(
        client, owner, cpu_core=16, cpu_frequency=3400.5, user=str(owner.id)
    ).get_json()
    assert (body["cpu_core"], body["cpu_frequency"]) == ("16", "3400.5")
    assert body["user"] == owner.id


@pytest.mark.parametrize("field", [*TEXTS, "user"])
def test_needs_every_field(client: FlaskClient, owner: Person, field: str) -> None:
    body = {**TEXTS, "user": owner.id}
    del body[field]
    answer = client.post("/gpu/list/", headers=owner.headers(), json=body)
    assert answer.status_code == 400
    assert list(answer.get_json()) == [field]


@pytest.mark.parametrize(
    "value",
    ["", True, None, [], {}, "x" * 2000],
    ids=["", "bool", "null", "list", "{}", "long"],
)
def test_refuses_what_is_no_text(client: FlaskClient, owner: Person, value: object) -> None:
    answer = create(client, owner, gpu_info=value)
    assert answer.status_code == 400
    assert list(answer.get_json()) == ["gpu_info"]


def test_user_must_be_the_caller(
    client: FlaskClient, owner: Person, other: Person, admin: Person
) -> None:
    assert create(client, owner, user=other.id).status_code == 403
    assert create(client, admin, user=other.id).get_json()["user"] == other.id
    assert create(client, admin, user=10**9).status_code == 400


@pytest.mark.parametrize("method", ["get", "put", "patch", "delete"])
def test_somebody_elses_machine_is_not_found(
    client: FlaskClient, owner: Person, other: Person, method: str
) -> None:
    made = create(client, owner).get_json()
    answer = getattr(client, method)(
        f"/gpu/list/{made['id']}/",
        headers=other.headers(),
        json={**TEXTS, "user": other.id},
    )
    assert answer.status_code == 404
    assert client.get("/gpu/list/", headers=owner.headers()).get_json() == [made]
    assert client.get("/gpu/list/", headers=other.headers()).get_json() == []


def test_an_admin_sees_everybodys(client: FlaskClient, owner: Person, admin: Person) -> None:
    made = create(client, owner).get_json()
    answer = client.get("/gpu/list/", headers=admin.headers())
    assert answer.get_json() == [made]
    assert answer.headers["X-Total-Count"] == "1"


def test_patch_changes_what_is_sent_and_put_all(client: FlaskClient, owner: Person) -> None:
    made = create(client, owner).get_json()
    url = f"/gpu/list/{made['id']}/"
    patched = client.patch(url, headers=owner.headers(), json={"ram": 128}).get_json()
    assert patched == {**made, "ram": "128"}
    full = {**TEXTS, "os_name": "Linux", "user": owner.id}
    replaced = client.put(url, headers=owner.headers(), json=full).get_json()
    assert replaced == {**full, "id": made["id"]}
    assert client.put(url, headers=owner.headers(), json={"ram": "1"}).status_code == 400


def test_delete_removes_it(client: FlaskClient, owner: Person) -> None:
    url = f"/gpu/list/{create(client, owner).get_json()['id']}/"
    assert client.delete(url, headers=owner.headers()).status_code == 204
    assert client.get(url, headers=owner.headers()).status_code == 404


def test_deleting_a_registered_gpu_takes_its_node_off_the_network(
    client: FlaskClient, owner: Person, sessions: sessionmaker[Session]
) -> None:
    made = create(client, owner).get_json()
    with sessions.begin() as session:
        new = NewNode(name="box", os_type="linux", agent_version="1")
        account = accounts.get_account(session, owner.id)
        node = enrol_node(session, account, new, now=utc_now(), auto_approve=False).node
        session.get_one(HardwareRecord, made["id"]).node_id = node.id
        node_id = node.id
    assert client.delete(f"/gpu/list/{made['id']}/", headers=owner.headers()).status_code == 204
    with sessions() as session:
        node = session.get_one(Node, node_id)
        assert node.removed_at is not None
        assert node.token_hash is None


@pytest.mark.parametrize("path", ["/gpu/list/0/", "/gpu/list/99999999999999999999/"])
def test_an_unknown_id_is_not_found(client: FlaskClient, admin: Person, path: str) -> None:
    answer = client.get(path, headers=admin.headers())
    assert answer.status_code == 404
    assert set(answer.get_json()) == {"detail"}
