"""One thing of every kind, each of which has the owner's mark in all of its texts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.ids import new_uid, uid_as_uuid
from app.core.models import (
    Base,
    EnrolmentToken,
    HardwareRecord,
    Inference,
    KnownModel,
    ResearchJob,
    ResearchStep,
    Run,
)
from app.core.services import credentials, datasets
from app.core.storage import Storage
from tests.fixtures.accounts import Person
from tests.fleet import TestNode, make_node, serve

# Stands in everything that the owner has, and in nothing else.
MARK = "qzx7mark"
MODEL = "shared-model"  # models' names are for all


class Things:
    """Makes things of one account."""

    def __init__(self, sessions: sessionmaker[Session], owner: Person, data_dir: Path) -> None:
        self.sessions = sessions
        self.owner = owner
        self.data_dir = data_dir
        self._nodes = 0
        with sessions.begin() as session:
            if session.get(KnownModel, MODEL) is None:
                session.add(KnownModel(name=MODEL, first_seen_at=utc_now()))

    def _add(self, row: Any) -> Any:
        with self.sessions.begin() as session:
            session.add(row)
            session.flush()
            session.expunge(row)
        return row

    def key(self) -> str:
        """The uid of an API key."""
        with self.sessions.begin() as session:
            for old in credentials.list_api_keys(session, self.owner.id)[5:]:
                if old.name.startswith(MARK):
                    credentials.end_credential(session, old.id, now=utc_now())
            issued = credentials.issue_api_key(
                session, self.owner.id, name=f"{MARK} key", now=utc_now()
            )
            return issued.credential.uid

    def session_uid(self) -> str:
        """The uid of a browser's session."""
        with self.sessions.begin() as session:
            issued = credentials.issue_session(
                session, self.owner.id, now=utc_now(), name=f"{MARK} browser"
            )
            return issued.credential.uid

    def node(self) -> TestNode:
        """A node that serves nothing."""
        self._nodes += 1
        return make_node(self.sessions, self.owner.id, f"{MARK} node {self._nodes}")

    def serving_node(self) -> TestNode:
        """A node that serves MODEL, at a port where nobody answers."""
        node = self.node()
        serve(self.sessions, node, MODEL)
        return node

    def enrolment_token(self) -> int:
        """The number of a token that lets machines join."""
        now = utc_now()
        return self._add(
            EnrolmentToken(
                account_id=self.owner.id,
                secret_hash=new_uid(),
                created_at=now,
                expires_at=now + timedelta(hours=1),
                uses_left=1,
            )
        ).id

    def run(self) -> Run:
        """A run that is over."""
        now = utc_now()
        return self._add(
            Run(
                uid=new_uid(),
                account_id=self.owner.id,
                door="openai",
                kind="chat",
                model_name=MODEL,
                state="succeeded",
                attempt=1,
                finish_reason="stop",
                request={"messages": [{"role": "user", "content": f"{MARK} why?"}]},
                answer_text=f"{MARK} because",
                created_at=now,
                rung_at=now,
                finished_at=now,
                deadline_at=now + timedelta(minutes=5),
            )
        )

    def inference(self) -> int:
        """A question that was answered."""
        return self._add(
            Inference(
                account_id=self.owner.id,
                run_id=self.run().id,
                question_text=f"{MARK} why?",
                desired_model=MODEL,
                created_at=utc_now(),
            )
        ).id

    def research(self) -> int:
        """A question that was researched."""
        now = utc_now()
        job = self._add(
            ResearchJob(
                uid=new_uid(),
                account_id=self.owner.id,
                question_text=f"{MARK} why?",
                model_name=MODEL,
                state="succeeded",
                answer_text=f"{MARK} report",
                sources=[{"number": 1, "title": MARK, "url": "https://x.example/"}],
                created_at=now,
                asked_at=now,
                rung_at=now,
                deadline_at=now,
                finished_at=now,
            )
        )
        self._add(
            ResearchStep(
                job_id=job.id,
                position=0,
                kind="plan",
                title=f"{MARK} step",
                state="done",
                result=MARK,
                started_at=now,
                finished_at=now,
            )
        )
        return int(job.id)

    def hardware(self) -> int:
        """A machine as torbiz describes it."""
        now = utc_now()
        texts = (
            "gpu_info",
            "cpu_name",
            "cpu_core",
            "cpu_frequency",
            "total_memory",
            "total_swap",
            "ram",
            "os_name",
            "os_version",
        )
        return self._add(
            HardwareRecord(
                account_id=self.owner.id,
                created_at=now,
                updated_at=now,
                **{name: f"{MARK} {name}" for name in texts},
            )
        ).id

    def dataset(self) -> str:
        """The uid of a table that has been read."""
        file = Storage("", self.data_dir).put_bytes(datasets.KIND, f"{MARK},b\n".encode())
        told = datasets.Inspected(
            "csv", datasets.DatasetKind.TABLE, (f"{MARK} a", "b"), ((f"{MARK} 1", "2"),), 1
        )
        new = datasets.NewDataset(
            name=f"{MARK} table.csv", description=f"{MARK} described",
            original_name=f"{MARK}.csv", stored=file, inspected=told, suffix_when_taken=True,
        )  # fmt: skip
        with self.sessions.begin() as session:
            row = datasets.add(session, self.owner.id, new, now=utc_now())
            row.status = datasets.DatasetStatus.READY
            return row.uid

    def everything(self) -> None:
        """One of each kind."""
        self.dataset()
        self.serving_node()
        self.inference()
        self.research()
        self.hardware()
        self.key()
        self.session_uid()


Maker = Callable[[Things], dict[str, Any]]

# What the ids in paths name. A new route needs its line here, or in NOBODYS.
MAKERS: dict[str, Maker] = {
    "/api/v1/api-keys/<key_id>": lambda t: {"key_id": uid_as_uuid(t.key())},
    "/api/v1/datasets/<dataset_id>": lambda t: {"dataset_id": uid_as_uuid(t.dataset())},
    "/api/datasets/<dataset_id>": lambda t: {"dataset_id": t.dataset()},
    "/data/<uid>": lambda t: {"uid": t.dataset()},
    "/client/list/<int:client_id>": lambda t: {"client_id": t.owner.id},
    "/deepresearch/<int:research_id>": lambda t: {"research_id": t.research()},
    "/gpu/list/<int:gpu_id>": lambda t: {"gpu_id": t.hardware()},
    "/inference/<int:inference_id>": lambda t: {"inference_id": t.inference()},
    "/keys/<uid>": lambda t: {"uid": t.key()},
    "/account/sessions/<uid>": lambda t: {"uid": t.session_uid()},
    "/nodes/join/<token_id>": lambda t: {"token_id": t.enrolment_token()},
    "/research/<job_id>": lambda t: {"job_id": t.research()},
    "/nodes/<client_id>": lambda t: {"client_id": t.node().client_id},
    "/runs/<run_id>": lambda t: {"run_id": t.run().uid},
    "/v1/runs/<run_id>": lambda t: {"run_id": t.run().uid},
}
# Ids in paths that name nothing that belongs to anybody.
NOBODYS = {
    "/v1/models/<path:model_name>": "which models there are is for every account to know",
    "/models/<version_id>": "the catalogue is for all to see; its changes are an admin's",
    "/join/<filename>": "the agent is the same for everybody",
    "/apks/<package_name>/<version_code>": "phones fetch published apps by a QR code",
    "/apps/<package_name>/<version_code>": "an admin's: test_what_is_an_admins",
    "/admin/accounts/<account_id>": "an admin's: test_what_is_an_admins",
    "/admin/nodes/<client_id>": "an admin's: test_what_is_an_admins",
    "/docs/<name>": "the documentation of an API",
    "/openapi/<name>": "the documentation of an API",
    "/static/<path:filename>": "what pages are made of",
    "/files/<kind>/<leaf>": "the signature in the link is the credential: tests/web/test_files",
    "/client/reset-password/<uidb64>/<token>": "the mailed link is the credential",
    "/reset-password/<uidb64>/<token>": "the mailed link is the credential",
}


def snapshot(sessions: sessionmaker[Session]) -> dict[str, list[Any]]:
    """All rows of all tables; when a key was last used is left out."""
    found = {}
    with sessions() as session:
        for table in Base.metadata.sorted_tables:
            columns = [c for c in table.columns if c.name != "last_used_at"]
            rows = session.execute(sa.select(*columns)).all()
            found[table.name] = sorted(map(repr, rows))
    return found


def enrolment_secret(sessions: sessionmaker[Session], owner: Person) -> str:
    """A token that lets machines join the owner's account."""
    from app.core.models import Account
    from app.core.services import enrolment

    with sessions.begin() as session:
        account = session.get_one(Account, owner.id)
        token, secret = enrolment.create_enrolment_token(
            session, account, now=utc_now(), hours=1, uses=100
        )
        assert isinstance(token, EnrolmentToken)
        return secret
