"""deepresearch's contract: fields, whose rows they are, what is refused before any work."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.ids import new_uid
from app.core.models import Account, ResearchJob
from app.core.services.research import MOST_LIVE_JOBS
from tests.dashboard.conftest import Rows
from tests.fixtures.accounts import Person
from tests.openapi import assert_matches_openapi

ASK = {"question_text": "How high is the tower?"}
AddJob = Callable[..., ResearchJob]


@pytest.fixture
def add_job(sessions: sessionmaker[Session]) -> AddJob:
    """Store a job that is over."""

    def add(person: Person, **changes: Any) -> ResearchJob:
        now = utc_now()
        values: dict[str, Any] = {
            "uid": new_uid(), "account_id": person.id, "question_text": "Why?",
            "model_name": "smollm2", "state": "succeeded", "answer_text": "Because.",
            "sources": [{"number": 1, "title": "A", "url": "http://a.b/"}],
            "created_at": now, "asked_at": now, "rung_at": now,
            "deadline_at": now + timedelta(hours=1), **changes,
        }  # fmt: skip
        with sessions.begin() as session:
            job = ResearchJob(**values)
            session.add(job)
            session.flush()
            session.expunge(job)
        return job

    return add


@pytest.fixture
def rows(sessions: sessionmaker[Session]) -> Rows:
    """Makes rows."""
    return Rows(sessions)


def test_a_job_has_the_contracts_fields(
    app: Flask, client: FlaskClient, owner: Person, add_job: AddJob
) -> None:
    job = add_job(owner)

    answer = client.get(f"/deepresearch/{job.id}/", headers=owner.headers())

    assert answer.status_code == 200
    assert_matches_openapi(app, answer)
    body = answer.get_json()
    assert body.pop("created_at").endswith("Z")
    assert body == {
        "id": job.id, "client": owner.id, "client_username": owner.username,
        "question_text": "Why?", "answer_text": "Because.", "image": None,
        "state": "succeeded", "error": None,
        "sources": [{"number": 1, "title": "A", "url": "http://a.b/"}],
    }  # fmt: skip


def test_an_answer_is_null_until_it_is_over(
    client: FlaskClient, owner: Person, add_job: AddJob
) -> None:
    job = add_job(owner, state="running", answer_text=None, sources=[])

    body = client.get(f"/deepresearch/{job.id}/", headers=owner.headers()).get_json()

    assert (body["answer_text"], body["state"]) == (None, "running")


def test_lists_hold_ones_own_newest_first(
    app: Flask,
    client: FlaskClient,
    owner: Person,
    other: Person,
    admin: Person,
    add_job: AddJob,
) -> None:
    first, second = add_job(owner), add_job(owner)
    foreign = add_job(other)

    def ids(path: str, person: Person) -> list[int]:
        answer = client.get(path, headers=person.headers())
        assert answer.status_code == 200
        assert_matches_openapi(app, answer)
        return [one["id"] for one in answer.get_json()]

    assert ids("/deepresearch/", owner) == [second.id, first.id]
    assert ids("/deepresearch/?page_size=1&page=2", owner) == [first.id]
    assert ids("/deepresearch/", admin) == [foreign.id, second.id, first.id]
    assert ids(f"/deepresearch/by_client/?client={owner.id}", owner) == [second.id, first.id]
    assert ids("/deepresearch/by_client/", owner) == [second.id, first.id]
    assert ids(f"/deepresearch/by_client/?client={other.id}", admin) == [foreign.id]
    assert ids("/deepresearch/by_client/?client=999999", admin) == []


def test_another_accounts_job_is_not_there(
    client: FlaskClient, owner: Person, other: Person, add_job: AddJob
) -> None:
    path = f"/deepresearch/{add_job(other).id}/"

    for method, where, body in (
        ("GET", path, None), ("PUT", path, ASK), ("PATCH", path, {}), ("DELETE", path, None),
        ("POST", f"{path}regenerate/", {}),
    ):  # fmt: skip
        answer = client.open(where, method=method, json=body, headers=owner.headers())
        assert answer.status_code == 404, method
        assert answer.get_json() == {"detail": "Not found."}
    assert client.get(path, headers=other.headers()).status_code == 200


def test_nobody_acts_for_another_client(
    client: FlaskClient, owner: Person, other: Person, add_job: AddJob
) -> None:
    path = f"/deepresearch/{add_job(owner).id}/"
    foreign = {**ASK, "client": other.id}

    for method, where in (
        ("POST", "/deepresearch/"), ("PUT", path), ("PATCH", path), ("POST", f"{path}regenerate/"),
    ):  # fmt: skip
        answer = client.open(where, method=method, json=foreign, headers=owner.headers())
        assert answer.status_code == 403, where
    asked = client.get(f"/deepresearch/by_client/?client={other.id}", headers=owner.headers())
    assert asked.status_code == 403


@pytest.mark.parametrize("body", [{}, {"question_text": ""}, {"question_text": " \n"},
                                  {"question_text": None}, {"question_text": 7}])  # fmt: skip
def test_a_question_has_words(client: FlaskClient, owner: Person, body: Any) -> None:
    answer = client.post("/deepresearch/", json=body, headers=owner.headers())

    assert answer.status_code == 400
    assert list(answer.get_json()) == ["question_text"]


@pytest.mark.parametrize("client_id", ["x", 1.5, [], "-1"])
def test_a_client_is_an_id(client: FlaskClient, owner: Person, client_id: Any) -> None:
    body = {**ASK, "client": client_id}
    answer = client.post("/deepresearch/", json=body, headers=owner.headers())

    assert answer.status_code in (400, 403)


def test_other_content_types_are_refused(client: FlaskClient, owner: Person) -> None:
    answer = client.post(
        "/deepresearch/", data="question_text: why", content_type="text/yaml",
        headers=owner.headers(),
    )  # fmt: skip
    assert answer.status_code == 415


def test_a_form_that_is_too_large_is_refused_unread(client: FlaskClient, owner: Person) -> None:
    answer = client.post(
        "/deepresearch/", data=bytes(13 * 2**20), headers=owner.headers(),
        content_type="multipart/form-data; boundary=x",
    )  # fmt: skip

    assert answer.status_code == 413
    assert "detail" in answer.get_json()


def test_without_a_change_an_object_comes_back(
    app: Flask, client: FlaskClient, owner: Person, add_job: AddJob
) -> None:
    job = add_job(owner)
    path, headers = f"/deepresearch/{job.id}/", owner.headers()
    before = client.get(path, headers=headers).get_json()

    for method, body in (
        ("PATCH", {}), ("PATCH", {"client": str(owner.id)}), ("PUT", {"question_text": "Why?"}),
        ("PUT", before),
    ):  # fmt: skip
        answer = client.open(path, method=method, json=body, headers=headers)
        assert (answer.status_code, answer.get_json()) == (200, before)
        assert_matches_openapi(app, answer)


def test_deleting_forgets(client: FlaskClient, owner: Person, add_job: AddJob) -> None:
    path = f"/deepresearch/{add_job(owner).id}/"

    answer = client.delete(path, headers=owner.headers())

    assert (answer.status_code, answer.data) == (204, b"")
    assert client.get(path, headers=owner.headers()).status_code == 404


def test_a_question_that_no_model_can_take_leaves_nothing_behind(
    client: FlaskClient, owner: Person, add_job: AddJob
) -> None:
    job = add_job(owner)

    for where in ("/deepresearch/", f"/deepresearch/{job.id}/regenerate/"):
        answer = client.post(where, json=ASK, headers=owner.headers())
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
    kept = client.get("/deepresearch/", headers=owner.headers()).get_json()
    assert [one["answer_text"] for one in kept] == ["Because."]


def test_too_many_at_once_are_refused(
    client: FlaskClient, owner: Person, rows: Rows, add_job: AddJob
) -> None:
    rows.replica(rows.node(owner))
    for _ in range(MOST_LIVE_JOBS):
        add_job(owner, state="queued", answer_text=None)

    answer = client.post("/deepresearch/", json=ASK, headers=owner.headers())

    assert answer.status_code == 429
    assert answer.headers["Retry-After"]


def test_a_job_waits_while_no_worker_is_there(
    make_app: Callable[..., Flask], owner: Person, rows: Rows
) -> None:
    """The answer comes after SYNC_WAIT_S, and the row is kept."""
    rows.replica(rows.node(owner))
    app = make_app(sync_wait_seconds=0.2)
    headers = {**owner.headers(), "Accept": "application/json"}

    answer = app.test_client().post("/deepresearch/", json=ASK, headers=headers)

    assert answer.status_code == 201
    assert_matches_openapi(app, answer)
    body = answer.get_json()
    assert (body["state"], body["answer_text"]) == ("queued", None)
    assert answer.headers["X-DeepResearch-Id"] == str(body["id"])


def test_a_closed_account_is_worked_for_no_longer(
    session: Session, owner: Person, add_job: AddJob
) -> None:
    from app.core.services import research_work

    job = add_job(owner, state="queued", answer_text=None)
    session.get_one(Account, owner.id).is_active = False

    claim = research_work.claim_job(session, job.id, worker="w", lease_seconds=9, now=utc_now())

    assert claim is None
    assert session.get_one(ResearchJob, job.id, populate_existing=True).state == "failed"
