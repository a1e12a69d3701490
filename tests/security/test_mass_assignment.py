"""Fields that nobody may choose: sent along, they change nothing."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session, sessionmaker

from app.core.models import Account, Credential
from tests.fixtures.accounts import Person
from tests.security.routes import Answer, Knocker, all_routes
from tests.security.things import Things

ME = ("GET", "/api/v1/auth/me")
CHAT = ("POST", "/v1/chat/completions")

EVIL: dict[str, Any] = {
    "id": 1, "account_id": 1, "uid": "0" * 24, "role": "admin", "is_admin": True,
    "is_staff": True, "is_superuser": True, "is_active": False, "deleted_at": None,
    "is_gpu_provider_approved": True, "provider_registration_date": "2001-01-01T00:00:00Z",
    "user_token": "wt_chosen-by-the-caller", "token_hash": "0" * 64, "secret": "sk-chosen",
    "key": "sk-chosen", "model_name_bound": "x", "password_hash": "x", "google_sub": "1",
    "ip": "6.6.6.6", "profile_image_url": "https://evil.example/x.png", "avatar_file": "x",
    "created_at": "2001-01-01T00:00:00Z", "updated_at": "2001-01-01T00:00:00Z",
    "credential_id": 1, "node_id": 1, "run_id": 1, "points": 9e9, "total_heartbeats": 720,
    "uptime_days": 99, "valid_status": "warning", "relay": "http://evil.example",
    "removed_at": "2001-01-01T00:00:00Z", "source": "platform", "state": "succeeded",
    "plan": "enterprise", "queries_used": 0, "tflops": 9e9, "multiplier": 99,
}  # fmt: skip
_ACCOUNT = ("uid", "role", "is_active", "is_gpu_provider_approved", "google_sub", "avatar_file",
            "provider_registration_date", "profile_image_url", "deleted_at")  # fmt: skip


def accounts_now(sessions: sessionmaker[Session]) -> dict[int, tuple[Any, ...]]:
    """What nobody may choose of every account."""
    with sessions() as session:
        return {
            row.id: tuple(getattr(row, name) for name in _ACCOUNT)
            for row in session.scalars(sa.select(Account))
        }


class TestMassAssignment:
    @pytest.mark.parametrize(
        ("door", "names"),
        [
            ("/client/register/", {"username": "eve", "confirm_password": "correct horse 9"}),
            ("/api/v1/auth/register", {"username": "eve"}),
            ("/api/auth/register", {"name": "Eve"}),
        ],
    )
    def test_who_registers_is_a_plain_user(
        self,
        knock: Knocker,
        sessions: sessionmaker[Session],
        admin: Person,
        door: str,
        names: dict[str, str],
    ) -> None:
        body = {**EVIL, **names, "email": "eve@example.org", "password": "correct horse 9",
                "user": {**EVIL}, "data": EVIL}  # fmt: skip
        answer = knock.ask(("POST", door), json=body)
        assert answer.status in {200, 201}, answer
        assert b"chosen" not in answer.body
        with sessions() as session:
            eve = session.scalars(
                sa.select(Account).where(Account.email == "eve@example.org")
            ).one()
            assert (eve.role, eve.is_active, eve.is_gpu_provider_approved) == (
                "user", True, False
            )  # fmt: skip
            assert eve.uid != EVIL["uid"]
            assert eve.ip == "127.0.0.1"
            assert (eve.google_sub, eve.profile_image_url) == (None, None)
            assert eve.created_at.year > 2001
            chosen = session.scalars(
                sa.select(Credential.secret_hash).where(Credential.account_id == eve.id)
            ).all()
        from app.core.ids import hash_secret

        assert hash_secret(EVIL["user_token"]) not in chosen

    def test_the_sign_up_page_too(
        self, app: Flask, knock: Knocker, sessions: sessionmaker[Session]
    ) -> None:
        fields = {**{k: str(v) for k, v in EVIL.items()}, "username": "eve",
                  "email": "eve@example.org", "password": "correct horse 9"}  # fmt: skip
        [route] = [r for r in all_routes(app) if r.rule.endpoint == "dashboard.sign_up"]
        assert knock.ask(route, data=fields).status == 303
        with sessions() as session:
            eve = session.scalars(sa.select(Account)).one()
            assert (eve.role, eve.is_gpu_provider_approved, eve.is_active) == (
                "user", False, True
            )  # fmt: skip

    @pytest.mark.parametrize("method", ["PUT", "PATCH"])
    @pytest.mark.parametrize("form", ["json", "multipart"])
    def test_an_account_cannot_raise_itself(
        self,
        knock: Knocker,
        sessions: sessionmaker[Session],
        owner: Person,
        method: str,
        form: str,
    ) -> None:
        before = accounts_now(sessions)
        path = (method, f"/client/list/{owner.id}/")
        names = {"username": owner.username, "email": owner.email}
        if form == "json":
            sent: dict[str, Any] = {"json": {**EVIL, "user": {**EVIL, **names, "id": owner.id}}}
        else:
            flat = {k: str(v) for k, v in EVIL.items()}
            dotted = {f"user.{k}": str(v) for k, v in {**EVIL, **names}.items()}
            dotted["user.id"] = str(owner.id)
            sent = {"data": {**flat, **dotted}, "content_type": "multipart/form-data"}
        answer = knock.ask(path, owner, **sent)
        assert answer.status == 200, answer
        assert accounts_now(sessions) == before
        assert answer.json["role"] == "user"
        assert answer.json["ip"] != EVIL["ip"]
        own = knock.ask(ME, headers={"Authorization": f"Token {EVIL['user_token']}"})
        assert own.status == 401

    def test_an_account_cannot_become_another(
        self, knock: Knocker, sessions: sessionmaker[Session], owner: Person, admin: Person
    ) -> None:
        before = accounts_now(sessions)
        for key in ("json",):
            body = {"user": {"id": admin.id, "username": "x", "email": "x@example.org"}}
            answer = knock.ask(("PATCH", f"/client/list/{owner.id}/"), owner, **{key: body})
            assert answer.status == 403
        assert accounts_now(sessions) == before

    def test_no_body_anywhere_changes_what_nobody_may_choose(
        self,
        app: Flask,
        knock: Knocker,
        sessions: sessionmaker[Session],
        things: Things,
        owner: Person,
        admin: Person,
    ) -> None:
        """Every route with a body or a form, as the owner, with all evil fields beside it."""
        from tests.security.bodies import form_fields, good_bodies

        node = things.node()
        before = accounts_now(sessions)
        bodies = good_bodies(owner, node_token=node.token, client_id=node.client_id)
        forms = form_fields(owner)
        spared = {"DELETE", "GET"}
        ends = {"dashboard.sign_out", "dashboard.sign_out_everywhere", "torbiz.logout_post"}
        for route in all_routes(app):
            endpoint = route.rule.endpoint
            if route.method in spared or endpoint in ends or "register" in endpoint:
                continue
            if endpoint in bodies:
                who: dict[str, Any] = {"json": {**EVIL, **bodies[endpoint]}}
            elif endpoint in forms:
                flat = {k: str(v) for k, v in EVIL.items()}
                who = {"data": {**flat, **forms[endpoint]}}
            else:
                continue
            if route.dialect == "agent":
                knock.ask(route, headers=node.headers, **who)
            else:
                knock.ask(route, owner, "bearer-key" if route.is_api else "cookie", **who)
        after = accounts_now(sessions)
        # Whoever has a node is a provider already; all else stays as it was.
        assert {k: after[k] for k in before} == before
        assert {row[1] for key, row in after.items() if key not in before} <= {"user"}

    def test_a_nodes_figures_are_the_hubs_to_write(
        self, knock: Knocker, sessions: sessionmaker[Session], things: Things, owner: Person
    ) -> None:
        from app.core.models import Node

        node = things.node()
        wanted = {"user_id": str(owner.id), "client_id": node.client_id, "name": "n"}
        evil = {k: v for k, v in EVIL.items() if k not in wanted}
        answers: list[Answer] = [
            knock.ask(("POST", "/api/user/insert_client"), owner,
                      json={**evil, **wanted, "client_status": "online"}),
            knock.ask(("POST", "/api/user/edit_client_info"), owner,
                      json={**evil, **wanted, "client_status": "online"}),
            knock.ask(("POST", "/llm_models/register/"), owner,
                      json={**evil, "model_name": "org/m", "node_token": node.token,
                            "user": owner.id}),
            knock.ask(("PUT", "/agent/v1/inventory"), headers=node.headers,
                      json={**evil, "inventory": {**evil, "devices": [
                          {"index": 0, "name": "Acme", "tflops": 9e9, "multiplier": 99}]}}),
        ]  # fmt: skip
        assert {answer.status for answer in answers} <= {200, 201, 204, 400, 403}, answers
        with sessions() as session:
            found = session.get_one(Node, node.id)
            assert found.account_id == owner.id
            assert (found.valid_status, found.total_heartbeats) == ("valid", 0)
            assert (found.uptime_days, found.relay, found.removed_at) == (0, None, None)
            assert found.created_at.year > 2001
