"""Research: ask, watch the plan fill in, read the report, take it along."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flask import Response, request, url_for
from flask.typing import ResponseReturnValue

from app.blueprints.dashboard.pages import blueprint, page, page_or_part, see_other
from app.blueprints.dashboard.presenters import Question, Shown
from app.core.clock import utc_now
from app.core.domain.errors import (
    InvalidInput,
    NoCapacity,
    NotFound,
    RateLimited,
    TooLarge,
)
from app.core.services import datasets, models, research
from app.core.services.research import ResearchView, StepView
from app.core.services.research_models import sees_images
from app.core.stream import STEP, TEXT
from app.web import live_research
from app.web.auth import current_identity
from app.web.context import settings
from app.web.files import lasting_file_url
from app.web.live_research import LiveResearch
from app.web.markdown import render_markdown
from app.web.pages import wants_fragment
from app.web.sse import frame, sse_response
from app.web.transaction import reading, release

PAGE_SIZE = 20
MOST_QUESTION_CHARACTERS = 20_000
_STATES = {
    "queued": Shown("Waiting"),
    "running": Shown("Researching", "busy", live=True),
    "succeeded": Shown("Finished", "ok"),
    "failed": Shown("Failed", "bad"),
}
_STEP_TONES = {"waiting": "", "running": "busy", "done": "ok", "failed": "bad"}
_STEP_TEXTS = {"waiting": "waiting", "running": "under way", "done": "done", "failed": "failed"}


@dataclass(frozen=True, slots=True)
class StepLine:
    """A step in the plan's list."""

    name: str
    title: str
    tone: str
    state_text: str
    error: str | None


@blueprint.get("/research")
def show_research() -> ResponseReturnValue:
    """A place to ask, and what was asked before."""
    return _room()


def _room(*, status: int = 200, **values: Any) -> ResponseReturnValue:
    number = min(max(request.args.get("page", 1, type=int), 1), 100_000)
    jobs, total = research.list_jobs(
        reading(), current_identity(), account_id=current_identity().account_id,
        page=number, page_size=PAGE_SIZE,
    )  # fmt: skip
    values = {
        "form": {}, "rows": [_row(job) for job in jobs], "page": _page(number, total),
        "sees_images": _sees_images(), "has_search": bool(settings().search_url),
        "own_data": datasets.count_searchable(reading(), current_identity().account_id),
        **values,
    }  # fmt: skip
    if status != 200:
        return page("research", status=status, **values)
    return page_or_part("research", "_research_list", **values)


def _sees_images() -> bool:
    wanted = live_research.research_models_wanted()
    online = models.list_available(
        reading(), now=utc_now(), offline_after_seconds=settings().offline_after_seconds
    )
    return any(sees_images(model.name, wanted) for model in online)


def _page(number: int, total: int) -> dict[str, Any]:
    def link(wanted: int) -> str:
        return url_for("dashboard.show_research", page=wanted if wanted > 1 else None)

    pages = max(1, -(-total // PAGE_SIZE))
    return {
        "number": number, "size": PAGE_SIZE, "total": total, "pages": pages,
        "here": link(number), "prev": link(number - 1) if number > 1 else None,
        "next": link(number + 1) if number < pages else None,
    }  # fmt: skip


def _row(job: ResearchView) -> dict[str, Any]:
    return {
        "href": url_for("dashboard.show_research_job", job_id=job.id),
        "question": " ".join(job.question_text.split())[:160],
        "state": _STATES[job.state],
        "sources": len(job.sources) if job.is_over else None,
        "model": job.model_name,
        "asked_at": job.asked_at,
    }


@blueprint.post("/research")
def ask_research() -> ResponseReturnValue:
    """Ask, and go to the page where the report grows."""
    question = request.form.get("question", "").strip()
    form = {"question": question}
    if not question or len(question) > MOST_QUESTION_CHARACTERS:
        message = "Write a question." if not question else "That question is too long."
        return _room(status=400, form=form, errors={"question": message})
    try:
        asked = live_research.ask(
            current_identity(), question_text=question, image_file=live_research.store_image()
        )
    except (InvalidInput, TooLarge) as error:
        return _room(status=400, form=form, errors={"image": error.message})
    except (NoCapacity, RateLimited) as error:
        status = 503 if isinstance(error, NoCapacity) else 429
        return _room(status=status, form=form, message=error.message)
    live_research.ring(asked)
    return see_other("show_research_job", job_id=asked.job_id)


@blueprint.get("/research/<job_id>")
def show_research_job(job_id: str) -> ResponseReturnValue:
    """One research: its steps, its report, its sources."""
    job = _job(job_id)
    steps = research.list_steps(reading(), job.id)
    return page_or_part("research_job", "_research_job", job=_job_page(job, steps))


def _job_page(job: ResearchView, steps: list[StepView]) -> dict[str, Any]:
    seconds = (job.finished_at - job.asked_at).total_seconds() if job.finished_at else None
    return {
        "id": job.id,
        "title": " ".join(job.question_text.split())[:120],
        "question": job.question_text,
        "image": lasting_file_url(job.image_file) if job.image_file else None,
        "state": _STATES[job.state],
        "begun_state": _STATES["running"],
        "is_queued": job.state == "queued",
        "is_live": not job.is_over,
        "error": job.error,
        "text": job.answer_text or "",
        "report": render_markdown(job.answer_text or ""),
        "steps": [_step_line(step) for step in steps],
        "sources": job.sources,
        "facts": [
            ("Model", job.model_name),
            ("Asked by", job.username),
            ("Sources", len(job.sources) if job.is_over else None),
        ],
        "asked_at": job.asked_at,
        "seconds": seconds,
    }


def _step_line(step: StepView) -> StepLine:
    tone = _STEP_TONES.get(step.state, "")
    return StepLine(step.name, step.title, tone, _STEP_TEXTS.get(step.state, ""), step.error)


@blueprint.get("/research/<job_id>/events")
def stream_research_events(job_id: str) -> ResponseReturnValue:
    """The report as it grows, always from its beginning: events `step`, `text`, `end`."""
    job = _job(job_id)
    if job.is_over:
        return sse_response([_end_frame({"state": job.state})])
    reader = live_research.follow(current_identity(), job)
    release()
    response = sse_response(_frames(reader))
    response.call_on_close(reader.close)
    return response


def _frames(reader: LiveResearch) -> Iterator[bytes]:
    for speaker, event in live_research.labelled(reader.events()):
        if event.kind == TEXT:
            yield frame(json.dumps({"step": speaker, "text": event.value}), event="text")
        elif event.kind == STEP:
            state = str(event.value.get("state"))
            shown = {"tone": _STEP_TONES.get(state, ""), "text": _STEP_TEXTS.get(state, "")}
            yield frame(json.dumps({**event.value, **shown}), event="step")
        elif event.is_end:
            yield _end_frame(event.value)


def _end_frame(value: dict[str, Any]) -> bytes:
    return frame(json.dumps({"state": value["state"]}), event="end")


@blueprint.get("/research/<job_id>/report.md")
def download_research_markdown(job_id: str) -> ResponseReturnValue:
    """The report as Markdown."""
    job = _finished(job_id)
    text = f"# {' '.join(job.question_text.split())}\n\n{job.answer_text}"
    return _attachment(text.encode(), f"research-{job.id}.md", "text/markdown; charset=utf-8")


@blueprint.get("/research/<job_id>/report.pdf")
def download_research_pdf(job_id: str) -> ResponseReturnValue:
    """The report as a PDF."""
    from app.web.report_pdf import render_pdf  # 34 MB, for few who export

    job = _finished(job_id)
    release()
    facts = f"Researched by Weft with {job.model_name}, {job.asked_at:%Y-%m-%d %H:%M} UTC"
    title = " ".join(job.question_text.split())[:1000]
    data = render_pdf(title, job.answer_text or "", facts=facts)
    return _attachment(data, f"research-{job.id}.pdf", "application/pdf")


def _attachment(data: bytes, filename: str, media_type: str) -> Response:
    response = Response(data, content_type=media_type)
    response.headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    return response


@blueprint.post("/research/<job_id>/regenerate")
def regenerate_research(job_id: str) -> ResponseReturnValue:
    """Research the same question anew."""
    job = _job(job_id)
    asked = live_research.ask_anew(current_identity(), job, question_text=job.question_text)
    live_research.ring(asked)
    return see_other("show_research_job", job_id=job.id)


@blueprint.get("/research/<job_id>/delete")
def confirm_delete_research(job_id: str) -> ResponseReturnValue:
    """Ask before a report is gone."""
    job = _job(job_id)
    question = Question(
        title="Delete this research?",
        text="The question and its report go. If it is still under way, it stops.",
        action=url_for("dashboard.delete_research", job_id=job.id),
        label="Delete it",
        cancel=url_for("dashboard.show_research_job", job_id=job.id),
    )
    return page("confirm", question=question, is_fragment=wants_fragment())


@blueprint.post("/research/<job_id>/delete")
def delete_research(job_id: str) -> ResponseReturnValue:
    """Forget a research."""
    live_research.delete(_job(job_id))
    return see_other("show_research")


def _job(job_id: str) -> ResearchView:
    if not (job_id.isascii() and job_id.isdecimal() and len(job_id) < 10):
        raise NotFound("Research not found.")
    return research.get_job(reading(), current_identity(), int(job_id))


def _finished(job_id: str) -> ResearchView:
    job = _job(job_id)
    if not job.answer_text:
        raise NotFound("There is no report yet.")
    return job
