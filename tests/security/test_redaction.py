"""After a busy round, no secret stands in a log, a metric, an error page or the database."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import sqlalchemy as sa

from app.core.ids import new_secret
from app.core.models import Base
from tests.fakes.faults import Fault
from tests.fixtures.hub import MakeHub, RunningHub

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("redaction")]

PROMPT = "prompt-that-nobody-else-reads-7391"


@dataclass
class Round:
    """What a busy round left behind: its secrets, the texts it was answered with, its hub."""

    hub: RunningHub
    secrets: dict[str, str] = field(default_factory=dict)
    answers: list[httpx.Response] = field(default_factory=list)

    def logs(self) -> dict[str, str]:
        files = [*self.hub.folder.glob("*.log"), *self.hub.folder.rglob("var/**/*.log")]
        return {str(path.name): path.read_text(errors="replace") for path in files}


@pytest.fixture(scope="module")
def busy(make_hub: MakeHub) -> Round:
    """Sign-ins good and bad, keys, nodes, runs that work and runs that fail."""
    hub = make_hub(FIRST_TOKEN_TIMEOUT_S="2", IDLE_TIMEOUT_S="2", SYNC_WAIT_S="5")
    found = Round(hub)
    with httpx.Client(base_url=hub.url, timeout=30) as http:
        _accounts(found, http)
        _machines(found, http)
        _runs(found, http)
        _faults(found, http)
        found.answers.append(http.get("/metrics"))
    return found


def _accounts(busy: Round, http: httpx.Client) -> None:
    secrets = busy.secrets
    secrets["password"] = new_secret("pw-", 20)
    body = {"username": "redacted", "email": "redacted@example.org",
            "password": secrets["password"]}  # fmt: skip
    secrets["user_token"] = http.post("/client/register/", json=body).json()["user_token"]
    signed_in = http.post("/client/login/", json=body).json()
    secrets["token"], secrets["device_token"] = signed_in["token"], signed_in["device_token"]
    pair = http.post("/api/v1/auth/login", json=body).json()["data"]
    secrets["jwt"], secrets["refresh"] = pair["access_token"], pair["refresh_token"]
    bearer = {"Authorization": f"Bearer {secrets['jwt']}"}
    made = http.post("/api/v1/api-keys", json={"name": "k"}, headers=bearer).json()["data"]
    secrets["api key"] = made["key"]
    secrets["wrong password"] = new_secret("wrong-", 20)
    wrong = {**body, "password": secrets["wrong password"]}
    busy.answers += [
        http.post("/client/login/", json=wrong),
        http.get("/client/list/", auth=("redacted", secrets["wrong password"])),
        http.post("/client/password-reset/", json={"email": "redacted@example.org"}),
        http.get("/api/auth/me", headers=bearer),
    ]


def _machines(busy: Round, http: httpx.Client) -> None:
    secrets, key = busy.secrets, {"X-API-Key": busy.secrets["api key"]}
    machine = {"model_name": "org/model", "gpu_info": "RTX 4090"}
    node = http.post("/llm_models/register/", json=machine, headers=key).json()
    secrets["node token"] = node["node_token"]
    secrets["engine key"] = new_secret("ek-", 30)
    bearer = {"Authorization": f"Bearer {secrets['node token']}"}
    replica = {"model_name": "org/model", "engine": "vllm", "state": "ready",
               "endpoint_url": "http://127.0.0.1:9", "api_key": secrets["engine key"]}  # fmt: skip
    busy.answers += [
        http.put("/agent/v1/replicas", json={"replicas": [replica]}, headers=bearer),
        http.post("/agent/v1/heartbeat", json={"sequence": 1}, headers=bearer),
        http.post("/agent/v1/heartbeat", content=b"{broken", headers=bearer),
    ]


def _runs(busy: Round, http: httpx.Client) -> None:
    key = {"Authorization": f"Bearer {busy.secrets['api key']}"}
    models = [busy.hub.serve().model, busy.hub.serve(fault=Fault.CUT).model,
              busy.hub.serve(fault=Fault.HANG).model, "org/model", "unknown/model"]  # fmt: skip
    for model in models:
        chat = {"model": model, "messages": [{"role": "user", "content": PROMPT}]}
        ask = {"question_text": PROMPT, "desired_model": model}
        http.post("/v1/chat/completions", json=chat, headers=key)
        http.post("/inference/stream/", json=ask, headers=key)


def _faults(busy: Round, http: httpx.Client) -> None:
    """Requests that are refused, with the secrets where they do not belong."""
    api_key = busy.secrets["api key"]
    bearer = {"Authorization": f"Bearer {api_key}"}
    busy.answers += [
        http.get("/api/v1/no-such-page", headers=bearer),
        http.get("/no-such-page", headers=bearer),
        http.get("/client/list/", headers={**bearer, "X-API-Key": api_key}),
        http.post("/client/register/", content=b'{"password": "' + api_key.encode()),
        http.post("/api/auth/register", json={"password": busy.secrets["password"]}),
        http.get("/v1/models/none", headers=bearer),
        http.get("/api/user/points?user_id=x&page=x", headers=bearer),
    ]


def holding(text: str, secrets: dict[str, str]) -> list[str]:
    """Names of the secrets that stand in a text."""
    return [name for name, secret in secrets.items() if secret in text]


def test_the_round_was_a_busy_one(busy: Round) -> None:
    assert len(busy.secrets) == 10
    assert all(len(secret) > 12 for secret in busy.secrets.values())
    assert busy.hub.run_of("org/model").state
    logs = busy.logs()
    assert {"web.log", "worker.log"} <= set(logs)
    assert any(logs.values())


def test_no_log_holds_a_secret_or_a_prompt(busy: Round) -> None:
    told = {**busy.secrets, "prompt": PROMPT}
    found = {name: holding(text, told) for name, text in busy.logs().items()}
    assert {name: names for name, names in found.items() if names} == {}


def test_no_answer_repeats_a_secret_that_it_was_sent(busy: Round) -> None:
    told = {**busy.secrets, "prompt": PROMPT}
    found = [(answer.url, holding(answer.text, told)) for answer in busy.answers]
    assert [one for one in found if one[1]] == []
    assert any(str(answer.url).endswith("/metrics") for answer in busy.answers)


def test_the_database_keeps_no_secret_in_clear(busy: Round) -> None:
    """Every column of every row, as text; prompts are kept, secrets are not."""
    kept: list[str] = []
    with busy.hub.sessions() as session:
        for table in Base.metadata.sorted_tables:
            for row in session.execute(sa.select(table)).all():
                text = repr(tuple(row))
                kept += [f"{table.name}: {name}" for name in holding(text, busy.secrets)]
    assert kept == []


def test_no_file_of_the_database_keeps_one_either(busy: Round) -> None:
    """Free pages and journals too; where the database is a file."""
    raw = {name: secret.encode() for name, secret in busy.secrets.items()}
    found = [
        (path.name, name)
        for path in files_of(busy.hub.folder)
        for name, secret in raw.items()
        if secret in path.read_bytes()
    ]
    assert found == []


def files_of(folder: Path) -> list[Path]:
    """Databases and what Redis wrote; mails hold what they are for."""
    kinds = re.compile(r"\.(db|db-wal|db-shm|rdb|aof|json|txt)$")
    return [path for path in folder.rglob("*") if path.is_file() and kinds.search(path.name)]


def test_redis_keeps_no_secret_in_clear(busy: Round) -> None:
    import redis

    store: Any = redis.Redis.from_url(busy.hub.environment["REDIS_URL"])
    found = []
    for key in store.scan_iter():
        text = repr((key, store.dump(key)))
        found += [f"{key!r}: {name}" for name in holding(text, busy.secrets)]
    assert found == []
