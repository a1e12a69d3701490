"""dualquery: register, sign in, who am I."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.domain.runs import RunState
from app.core.ids import new_uid
from app.core.models import Run
from tests.fixtures.accounts import PASSWORD, Person
from tests.fixtures.web import SECRET_KEY
from tests.openapi import assert_matches_openapi

NEW = {"email": "John@Example.org", "password": "secret1", "name": "John Doe"}


class TestRegister:
    def test_answers_with_the_user_of_the_contract(
        self, app: Flask, client: FlaskClient
    ) -> None:
        answer = client.post("/api/auth/register", json=NEW)
        body = answer.get_json()
        assert answer.status_code == 201
        assert_matches_openapi(app, answer)
        assert body == {
            "_id": body["_id"],
            "id": body["_id"],
            "email": "john@example.org",
            "name": "John Doe",
            "username": "john",
            "current_plan": "free",
            "queries_used": 0,
            "fine_tune_jobs": 0,
            "datasets_count": 0,
            "billing_cycle": None,
        }

    def test_a_taken_address_is_400_with_the_contracts_sentence(
        self, client: FlaskClient
    ) -> None:
        client.post("/api/auth/register", json=NEW)
        answer = client.post("/api/auth/register", json=NEW)
        assert answer.status_code == 400
        assert answer.get_json() == {"detail": "Email already registered"}

    def test_a_user_name_is_made_that_is_free(self, client: FlaskClient) -> None:
        names = [
            client.post(
                "/api/auth/register", json={**NEW, "email": f"john@{host}.org"}
            ).get_json()["username"]
            for host in ("one", "two")
        ]
        assert names[0] == "john"
        assert names[1].startswith("john-")

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"email": "nowhere"}, "email"),
            ({"password": "12345"}, "password"),
            ({"name": ""}, "name"),
        ],
    )
    def test_a_wrong_field_is_422_and_says_where(
        self, app: Flask, client: FlaskClient, change: dict[str, Any], field: str
    ) -> None:
        answer = client.post("/api/auth/register", json={**NEW, **change})
        assert answer.status_code == 422
        assert_matches_openapi(app, answer)
        [problem] = answer.get_json()["detail"]
        assert problem["loc"] == ["body", field]
        assert set(problem) == {"loc", "msg", "type"}

    def test_is_closed_by_a_setting(self, make_app: Callable[..., Flask]) -> None:
        closed = make_app(open_signup=False).test_client()
        assert closed.post("/api/auth/register", json=NEW).status_code == 403


class TestLogin:
    def test_answers_with_a_jwt_for_a_day(
        self, app: Flask, client: FlaskClient, owner: Person
    ) -> None:
        answer = client.post(
            "/api/auth/login", json={"email": owner.email, "password": PASSWORD}
        )
        assert answer.status_code == 200
        assert_matches_openapi(app, answer)
        body = answer.get_json()
        assert set(body) == {"access_token", "token_type"}
        assert body["token_type"] == "bearer"
        claims = jwt.decode(body["access_token"], SECRET_KEY, algorithms=["HS256"])
        left = datetime.fromtimestamp(claims["exp"], UTC) - utc_now()
        assert timedelta(hours=23, minutes=59) < left <= timedelta(hours=24)

        headers = {"Authorization": f"Bearer {body['access_token']}"}
        me = client.get("/api/auth/me", headers=headers)
        assert_matches_openapi(app, me)
        assert me.get_json()["_id"] == owner.uid

    def test_a_wrong_password_is_401_with_the_contracts_sentence(
        self, client: FlaskClient, owner: Person
    ) -> None:
        body = {"email": owner.email, "password": "wrong!"}
        answer = client.post("/api/auth/login", json=body)
        assert answer.status_code == 401
        assert answer.get_json() == {"detail": "Incorrect email or password"}
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_queries_used_counts_answered_questions_of_the_chats(
    client: FlaskClient, owner: Person, other: Person, sessions: sessionmaker[Session]
) -> None:
    def run(person: Person, door: str, state: RunState) -> Run:
        now = utc_now()
        return Run(
            uid=new_uid(), account_id=person.id, door=door, kind="chat", model_name="m",
            request={}, state=state, tried_replicas=[], created_at=now, rung_at=now,
            deadline_at=now,
        )  # fmt: skip

    with sessions.begin() as session:
        session.add_all(
            [
                run(owner, "dualquery", RunState.SUCCEEDED),
                run(owner, "dualquery", RunState.FAILED),
                run(owner, "openai", RunState.SUCCEEDED),
                run(other, "dualquery", RunState.SUCCEEDED),
            ]
        )
    me = client.get("/api/auth/me", headers=owner.headers()).get_json()
    assert me["queries_used"] == 1


def test_health_is_open(client: FlaskClient) -> None:
    answer = client.get("/health")
    assert answer.get_json() == {"status": "healthy"}
