"""What each credential opens and no more, and that all of them end when the account does."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import jwt
import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session, sessionmaker

from app.config import Settings
from app.core.clock import utc_now
from app.core.models import Account, Credential, KnownModel
from app.core.services import credentials
from app.web.auth import SESSION_SECRET
from tests.fixtures.accounts import Person
from tests.fixtures.clocks import PassTime
from tests.security.routes import EVERY_CARRIER, Knocker, all_routes, closed_routes
from tests.security.shapes import is_in_shape
from tests.security.things import MODEL, Things, enrolment_secret, snapshot

ME = ("GET", "/api/v1/auth/me")
CHAT = ("POST", "/v1/chat/completions")


def shown_as(secret: str) -> list[dict[str, str]]:
    """The headers in which a secret can be sent."""
    pair = base64.b64encode(f"x:{secret}".encode()).decode()
    return [
        {"Authorization": f"Bearer {secret}"},
        {"Authorization": f"Token {secret}"},
        {"X-API-Key": secret},
        {"Authorization": f"Basic {pair}"},
    ]


class TestMachines:
    """Tokens of nodes and for joining open the agent API alone."""

    @pytest.fixture
    def patient(self, make_app: Callable[..., Flask]) -> Knocker:
        """An app that does not count failures."""
        return Knocker(make_app(signin_limit_per_minute=100_000))

    def test_a_node_token_opens_nothing_but_the_agent_api(
        self, patient: Knocker, things: Things
    ) -> None:
        token = things.node().token
        opened = [
            (route.name, answer.status)
            for route in closed_routes(patient.app)
            if route.dialect != "agent"
            for headers in shown_as(token)
            if (answer := patient.ask(route, headers=headers)).status != 401
        ]
        assert opened == []
        assert (
            patient.ask(("GET", "/agent/v1/desired"), headers=shown_as(token)[0]).status == 200
        )

    def test_a_node_token_in_another_header_opens_no_agent_route(
        self, patient: Knocker, things: Things
    ) -> None:
        token = things.node().token
        for route in all_routes(patient.app):
            if route.dialect == "agent":
                for headers in shown_as(token)[1:]:
                    assert patient.ask(route, headers=headers).status == 401, route.name

    def test_an_enrolment_token_opens_nothing_but_enrolment(
        self, patient: Knocker, sessions: sessionmaker[Session], owner: Person
    ) -> None:
        secret = enrolment_secret(sessions, owner)
        before = snapshot(sessions)
        opened = [
            (route.name, answer.status)
            for route in closed_routes(patient.app)
            if route.name != "POST /agent/v1/enrol"
            for headers in shown_as(secret)
            if (answer := patient.ask(route, headers=headers)).status != 401
        ]
        assert opened == []
        assert snapshot(sessions) == before

    @pytest.mark.parametrize("carrier", EVERY_CARRIER)
    def test_no_account_opens_the_agent_api(
        self, app: Flask, knock: Knocker, owner: Person, carrier: str
    ) -> None:
        for route in all_routes(app):
            if route.dialect == "agent":
                answer = knock.ask(route, owner, carrier)
                assert answer.status == 401, route.name
                assert is_in_shape("agent", answer), route.name

    def test_a_node_of_a_closed_account_is_refused(
        self, knock: Knocker, things: Things, owner: Person, pass_time: PassTime
    ) -> None:
        node = things.node()
        desired = ("GET", "/agent/v1/desired")
        assert knock.ask(desired, headers=node.headers).status == 200
        knock.ask(("DELETE", f"/client/list/{owner.id}/"), owner)
        pass_time(1.0)
        assert knock.ask(desired, headers=node.headers).status == 401

    def test_somebody_elses_node_token_moves_nothing_of_his(
        self,
        knock: Knocker,
        sessions: sessionmaker[Session],
        things: Things,
        outsider: Person,
    ) -> None:
        """It leaked, say: it beats and signs off, but another account registers nothing."""
        node = things.serving_node()
        before = snapshot(sessions)
        body = {"node_token": node.token, "model_name": "evil/model", "user": outsider.id}
        answer = knock.ask(("POST", "/llm_models/register/"), outsider, json=body)
        assert answer.status in {403, 404}
        assert snapshot(sessions) == before


class TestBoundKeys:
    """A key of one model opens /v1 with that model, and nothing else."""

    @pytest.fixture
    def bound(self, sessions: sessionmaker[Session], owner: Person) -> str:
        """A key of the model `one`."""
        with sessions.begin() as session:
            return credentials.issue_api_key(
                session, owner.id, name="bound", now=utc_now(), model_name="one"
            ).secret

    @pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
    def test_no_other_door_opens(
        self, app: Flask, knock: Knocker, sessions: Any, bound: str, header: str
    ) -> None:
        value = f"Bearer {bound}" if header == "Authorization" else bound
        before = snapshot(sessions)
        expected = {"agent": 401}
        opened = [
            (route.name, answer.status)
            for route in closed_routes(app)
            if route.dialect != "openai"
            if (answer := knock.ask(route, headers={header: value})).status
            != expected.get(route.dialect, 403)
        ]
        assert opened == []
        assert snapshot(sessions) == before

    def test_only_its_model_is_asked_and_shown(
        self, knock: Knocker, sessions: Any, things: Things, bound: str
    ) -> None:
        with sessions.begin() as session:
            session.add(KnownModel(name="one", first_seen_at=utc_now()))
        things.serving_node()
        headers = {"Authorization": f"Bearer {bound}"}
        messages = [{"role": "user", "content": "x"}]
        other = knock.ask(CHAT, headers=headers, json={"model": MODEL, "messages": messages})
        own = knock.ask(CHAT, headers=headers, json={"model": "one", "messages": messages})
        text = knock.ask(
            ("POST", "/v1/completions"), headers=headers, json={"model": MODEL, "prompt": "x"}
        )
        assert (other.status, text.status, own.status) == (403, 403, 503)
        assert knock.ask(("GET", "/v1/models"), headers=headers).json["data"] == []
        assert knock.ask(("GET", f"/v1/models/{MODEL}"), headers=headers).status == 404

    def test_runs_of_other_models_are_not_its_to_see(
        self, knock: Knocker, things: Things, bound: str
    ) -> None:
        path = f"/v1/runs/{things.run().uid}"
        headers = {"Authorization": f"Bearer {bound}"}
        for asked in (("GET", path), ("POST", f"{path}/cancel"), ("GET", f"{path}/events")):
            assert knock.ask(asked, headers=headers).status == 404, asked


class TestJwt:
    """Signed by us, for access, for a sign-in that goes on."""

    def claims(self, person: Person) -> dict[str, Any]:
        return jwt.decode(person.jwt, options={"verify_signature": False})

    def is_let_in(self, knock: Knocker, token: str) -> bool:
        statuses = {
            knock.ask(("GET", path), headers={"Authorization": f"Bearer {token}"}).status
            for path in ("/api/v1/auth/me", "/api/auth/me", "/client/list/", "/v1/models")
        }
        assert statuses in ({200}, {401}), statuses
        return statuses == {200}

    def test_the_real_one_opens(self, knock: Knocker, owner: Person) -> None:
        assert self.is_let_in(knock, owner.jwt)

    @pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE"])
    def test_an_unsigned_one_is_refused(
        self, knock: Knocker, owner: Person, algorithm: str
    ) -> None:
        head = base64.urlsafe_b64encode(
            json.dumps({"alg": algorithm, "typ": "JWT"}).encode()
        ).decode().rstrip("=")  # fmt: skip
        _, claims, signature = owner.jwt.split(".")
        assert not self.is_let_in(knock, f"{head}.{claims}.")
        assert not self.is_let_in(knock, f"{head}.{claims}.{signature}")

    @pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
    def test_a_wrong_key_is_refused(
        self, knock: Knocker, owner: Person, algorithm: str
    ) -> None:
        forged = jwt.encode(self.claims(owner), "x" * 64, algorithm=algorithm)
        assert not self.is_let_in(knock, forged)

    def test_another_algorithm_with_our_key_is_refused(
        self, knock: Knocker, owner: Person, settings: Settings
    ) -> None:
        forged = jwt.encode(self.claims(owner), settings.secret_key * 2, algorithm="HS512")
        assert not self.is_let_in(knock, forged)

    def test_a_refresh_token_is_no_access_token(self, knock: Knocker, owner: Person) -> None:
        assert not self.is_let_in(knock, owner.refresh_token)

    def test_an_access_token_refreshes_nothing(self, knock: Knocker, owner: Person) -> None:
        for token in (owner.jwt, owner.token, owner.api_key, "a.b.c"):
            answer = knock.ask(("POST", "/api/v1/auth/refresh"), json={"refresh_token": token})
            assert answer.status == 401

    @pytest.mark.parametrize(
        "change",
        [{"exp": 1}, {"exp": None}, {"sid": None}, {"sid": 1}, {"sid": "0" * 24},
         {"use": None}, {"use": "refresh"}, {"sub": None}],
        ids=str,
    )  # fmt: skip
    def test_claims_that_do_not_hold_are_refused(
        self, knock: Knocker, owner: Person, settings: Settings, change: dict[str, Any]
    ) -> None:
        claims = {k: v for k, v in {**self.claims(owner), **change}.items() if v is not None}
        forged = jwt.encode(claims, settings.secret_key, algorithm="HS256")
        assert not self.is_let_in(knock, forged)

    def test_it_names_a_sign_in_and_no_other_credential(
        self, knock: Knocker, sessions: Any, owner: Person, other: Person, settings: Settings
    ) -> None:
        """Another kind's row, or another account's sign-in, is not what was signed."""
        with sessions() as session:
            key_uid = session.scalar(
                sa.select(Credential.uid).where(
                    Credential.account_id == owner.id, Credential.kind == "api_key"
                )
            )
        sids = (key_uid, self.claims(other)["sid"])
        for sid in sids:
            forged = jwt.encode(
                {**self.claims(owner), "sid": sid}, settings.secret_key, algorithm="HS256"
            )
            assert not self.is_let_in(knock, forged)

    def test_the_role_in_it_makes_nobody_an_admin(
        self, knock: Knocker, owner: Person, other: Person, settings: Settings
    ) -> None:
        claims = {**self.claims(owner), "role": "admin"}
        signed = jwt.encode(claims, settings.secret_key, algorithm="HS256")
        headers = {"Authorization": f"Bearer {signed}"}
        assert len(knock.ask(("GET", "/client/list/"), headers=headers).json) == 1
        path = f"/client/list/{other.id}/"
        assert knock.ask(("GET", path), headers=headers).status == 404


class TestKinds:
    """A secret of one kind is not taken for another."""

    def test_a_sessions_secret_is_no_header(self, knock: Knocker, owner: Person) -> None:
        for headers in shown_as(owner.session_secret):
            assert knock.ask(ME, headers=headers).status == 401

    @pytest.mark.parametrize("secret", ["api_key", "token", "jwt", "refresh_token"])
    def test_no_other_secret_is_a_cookie(self, app: Flask, owner: Person, secret: str) -> None:
        client = app.test_client()
        with client.session_transaction() as cookie:
            cookie[SESSION_SECRET] = getattr(owner, secret)
        assert client.get("/api/v1/auth/me").status_code == 401
        assert client.get("/").status_code == 303

    def test_a_cookie_that_we_did_not_sign_is_a_visitors(
        self, app: Flask, make_app: Callable[..., Flask], owner: Person
    ) -> None:
        elsewhere = make_app(secret_key="another-" + "0" * 40)
        forged = owner.signed_in(elsewhere.test_client()).get_cookie("weft")
        assert forged is not None
        client = app.test_client()
        client.set_cookie("weft", forged.value)
        assert client.get("/").status_code == 303

    def test_a_mask_is_no_key(self, knock: Knocker, owner: Person) -> None:
        [key] = knock.ask(("GET", "/api/v1/api-keys"), owner).json["data"]
        assert key["key"] != owner.api_key
        for headers in shown_as(key["key"].replace("…", "...")):
            assert knock.ask(ME, headers=headers).status == 401

    def test_the_hash_in_the_database_is_no_key(
        self, knock: Knocker, sessions: Any, owner: Person
    ) -> None:
        with sessions() as session:
            hashes = session.scalars(sa.select(Credential.secret_hash)).all()
        for secret in hashes:
            assert knock.ask(ME, headers=shown_as(secret)[0]).status == 401


def use_all(knock: Knocker, person: Person) -> set[int]:
    return {knock.ask(ME, person, carrier).status for carrier in EVERY_CARRIER}


class TestTheEndOfAnAccount:
    """Each carrier was used a moment ago, here and in another process."""

    @pytest.fixture(autouse=True)
    def _clock(self, pass_time: PassTime) -> None:
        self.pass_time = pass_time

    @pytest.fixture
    def there(self, make_app: Callable[..., Flask], owner: Person) -> Knocker:
        """Another process, which has seen all of the owner's carriers."""
        found = Knocker(make_app())
        assert use_all(found, owner) == {200}
        return found

    def check_all_end(self, processes: list[Knocker], person: Person) -> None:
        self.pass_time(1.0)
        assert [use_all(knock, person) for knock in processes] == [{401}] * len(processes)

    def test_deletion_ends_every_carrier_everywhere(
        self, knock: Knocker, there: Knocker, owner: Person, admin: Person
    ) -> None:
        assert use_all(knock, owner) == {200}
        assert knock.ask(("DELETE", f"/client/list/{owner.id}/"), admin).status == 204
        assert use_all(knock, owner) == {401}
        self.check_all_end([there], owner)

    def test_disabling_ends_every_carrier_everywhere(
        self, knock: Knocker, there: Knocker, sessions: Any, owner: Person
    ) -> None:
        assert use_all(knock, owner) == {200}
        with sessions.begin() as session:
            session.get_one(Account, owner.id).is_active = False
        self.check_all_end([knock, there], owner)
        assert knock.ask(("POST", "/api/v1/auth/refresh"),
                         json={"refresh_token": owner.refresh_token}).status == 401  # fmt: skip
        for door in ("/client/login/", "/api/v1/auth/login", "/api/auth/login"):
            body = {"email": owner.email, "password": owner.password}
            assert knock.ask(("POST", door), json=body).status == 401, door

    def test_an_admin_who_is_one_no_longer_loses_the_rights(
        self, knock: Knocker, sessions: Any, admin: Person, owner: Person
    ) -> None:
        path = ("GET", f"/client/list/{owner.id}/")
        assert knock.ask(path, admin).status == 200
        with sessions.begin() as session:
            session.get_one(Account, admin.id).role = "user"
        self.pass_time(1.0)
        assert {knock.ask(path, admin, one).status for one in EVERY_CARRIER} == {404}

    def test_keys_and_sessions_end_when_their_time_is_over(
        self, knock: Knocker, sessions: Any, owner: Person
    ) -> None:
        with sessions.begin() as session:
            past = utc_now() - timedelta(seconds=1)
            session.execute(sa.update(Credential).values(expires_at=past))
        for carrier in set(EVERY_CARRIER) - {"basic"}:
            assert knock.ask(ME, owner, carrier).status == 401, carrier
