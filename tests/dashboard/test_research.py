"""The research room: asking, the list, one report and its exports, whose it is."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import utc_now
from app.core.ids import new_uid
from app.core.models import ResearchJob, ResearchStep
from tests.dashboard.conftest import HOSTILE, Browser, Rows
from tests.dashboard.test_every_page import inline_code
from tests.fixtures.accounts import Person

REPORT = "## Plan\n\n1. How high?\n\n## How high?\n\nVery high [1].\n\n## Sources\n\n1. A – <http://a.b/>\n"


@pytest.fixture
def add_job(sessions: sessionmaker[Session]) -> Any:
    """Store a research job with its steps."""

    def add(owner: Person, question: str = "How high is it?", **changes: Any) -> ResearchJob:
        now = utc_now()
        values: dict[str, Any] = {
            "uid": new_uid(), "account_id": owner.id, "question_text": question,
            "model_name": "smollm2", "state": "succeeded", "answer_text": REPORT,
            "sources": [{"number": 1, "title": "A", "url": "http://a.b/"}],
            "created_at": now, "asked_at": now, "rung_at": now, "finished_at": now,
            "deadline_at": now + timedelta(hours=1), **changes,
        }  # fmt: skip
        with sessions.begin() as session:
            job = ResearchJob(**values)
            session.add(job)
            session.flush()
            title = changes.get("error") or "Plan sub-questions"
            session.add(
                ResearchStep(
                    job_id=job.id, position=1, kind="plan", title=title, state="done", runs=[]
                )
            )
            session.expunge(job)
        return job

    return add


def test_asking_leads_to_the_page_where_the_report_grows(
    browser: Browser, rows: Rows, owner: Person
) -> None:
    rows.replica(rows.node(owner))

    answer = browser.send("/research", question="How high is the tower?")

    assert answer.status_code == 303
    page = browser.open(answer.location)
    assert "How high is the tower?" in page.text
    assert f'data-events="{answer.location}/events"' in page.text
    assert "How high is the tower?" in browser.open("/research").text


@pytest.mark.parametrize(
    ("question", "status"), [("", 400), ("x" * 20_001, 400), ("Why?", 503)]
)
def test_what_can_not_be_asked_is_said_beside_the_question(
    browser: Browser, question: str, status: int
) -> None:
    answer = browser.send("/research", question=question)

    assert answer.status_code == status
    assert "error" in answer.text or "No online node" in answer.text
    assert "No research yet" in answer.text


def test_a_picture_that_is_none_is_refused_beside_its_field(
    browser: Browser, rows: Rows, owner: Person
) -> None:
    import io

    rows.replica(rows.node(owner), model="llava")
    answer = browser.client.post(
        "/research",
        data={
            "csrf_token": browser.csrf_token(), "question": "Why?",
            "image": (io.BytesIO(b"<svg/>"), "a.png"),
        },
    )  # fmt: skip

    assert answer.status_code == 400
    assert 'id="image-error"' in answer.text


def test_a_report_is_shown_with_its_steps_and_sources(
    browser: Browser, owner: Person, add_job: Any
) -> None:
    job = add_job(owner)

    page = browser.open(f"/research/{job.id}").text

    assert "<h2>How high?</h2>" in page
    assert 'data-step="plan"' in page
    assert 'href="http://a.b/"' in page
    assert "data-events" not in page


def test_a_report_can_be_taken_along(browser: Browser, owner: Person, add_job: Any) -> None:
    job = add_job(owner, "Wie hoch? Ποιος; Кто?")

    markdown = browser.open(f"/research/{job.id}/report.md")
    pdf = browser.open(f"/research/{job.id}/report.pdf")

    assert markdown.text == f"# {job.question_text}\n\n{REPORT}"
    assert pdf.data.startswith(b"%PDF-")
    for answer, name in ((markdown, "md"), (pdf, "pdf")):
        assert answer.headers["Content-Disposition"].endswith(f'"research-{job.id}.{name}"')


def test_there_is_nothing_to_take_along_before_the_report(
    browser: Browser, owner: Person, add_job: Any
) -> None:
    job = add_job(owner, state="running", answer_text=None, finished_at=None)

    for name in ("md", "pdf"):
        assert browser.open(f"/research/{job.id}/report.{name}").status_code == 404


def test_somebody_elses_research_is_not_there(
    browser: Browser, other: Person, add_job: Any
) -> None:
    job = add_job(other)

    for path in ("", "/events", "/report.md", "/report.pdf", "/delete"):
        assert browser.open(f"/research/{job.id}{path}").status_code == 404
    for path in ("/regenerate", "/delete"):
        assert browser.send(f"/research/{job.id}{path}").status_code == 404
    assert "How high" not in browser.open("/research").text


def test_deleting_asks_first(browser: Browser, owner: Person, add_job: Any) -> None:
    job = add_job(owner)

    assert "Delete this research?" in browser.part(f"/research/{job.id}/delete").text
    assert browser.send(f"/research/{job.id}/delete").location == "/research"
    assert browser.open(f"/research/{job.id}").status_code == 404


@pytest.mark.parametrize(
    "text", [*HOSTILE, "![x](http://evil/x.png)", "[a](javascript:alert(1))"]
)
def test_a_hostile_report_does_nothing(
    browser: Browser, owner: Person, add_job: Any, text: str
) -> None:
    job = add_job(
        owner, text, answer_text=f"# {text}\n\n{text}", state="failed", error=text,
        sources=[{"number": 1, "title": text, "url": "http://a.b/"}],
    )  # fmt: skip

    for path in ("/research", f"/research/{job.id}"):
        page = browser.open(path).text
        assert inline_code(re.sub(r"javascript:alert\(1\)\)", "", page)) == []
        assert "<script>alert" not in page
        assert "<img" not in page
        assert 'href="javascript' not in page


def test_the_stream_of_a_finished_report_is_its_end(
    browser: Browser, owner: Person, add_job: Any
) -> None:
    job = add_job(owner)

    answer = browser.open(f"/research/{job.id}/events")

    assert answer.mimetype == "text/event-stream"
    assert answer.text == 'event: end\ndata: {"state": "succeeded"}\n\n'
