"""Research jobs as a request lives with them: ask, follow, let go. They outlive their readers."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import redis
from flask import current_app, request

from app.core.clock import utc_now
from app.core.domain.accounts import Identity
from app.core.domain.errors import InvalidInput, TooLarge, Unauthenticated
from app.core.domain.research import ResearchState
from app.core.pictures import QUESTION_BYTES, make_question_image
from app.core.queue import RESEARCH, RESEARCH_TASK
from app.core.services import research, research_models
from app.core.services.research import Asked, ResearchView
from app.core.services.research_models import Chosen, ResearchModels
from app.core.stream import END, STEP, TEXT, Event
from app.extensions import db
from app.web import live
from app.web.context import redis_client, settings
from app.web.files import storage
from app.web.live import LiveRun, error_of_end, live_runs
from app.web.transaction import release, unit_of_work

if TYPE_CHECKING:
    from app.core.stream import Subscription

log = logging.getLogger(__name__)

IMAGE_KIND = "research"
# A form around an image of ten megabytes.
FORM_BYTES = QUESTION_BYTES + 2 * 1024 * 1024


class LiveResearch(LiveRun):
    """One reader of one asking."""

    def __init__(self, caller: Identity, asked: Asked, reader: Subscription) -> None:
        super().__init__(
            live_runs(), caller, asked.stream_id, asked.job_id, reader, is_attached=False
        )
        self._asked = asked
        self._early: list[Event] = []

    def wait_until(self, kinds: frozenset[str], seconds: float) -> None:
        """Wait for the first event of these kinds, so many seconds at most.

        Raises the job's error when it fails before that.
        """
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            event = self.poll(min(left, live.LOOK_SECONDS))
            if self._is_revoked:
                raise Unauthenticated("Could not validate credentials")
            if event is None:
                continue
            if event.is_end and event.value["state"] != ResearchState.SUCCEEDED:
                self.close()
                raise error_of_end(event.value)
            self._early.extend(self._repaired(event))
            if event.is_end or event.kind in kinds:
                return

    def events(self) -> Iterator[Event]:
        """The events in order; the last is an `end`."""
        yield from self._early
        if self._is_over:
            self.close()
        else:
            yield from super().events()

    def _stored_text(self) -> str:
        found = self._find()
        return (found.answer_text if found else None) or ""

    def _end_from_database(self) -> Event | None:
        found = self._find()
        place = self._reader.last_seen + 1
        if found is None:
            return Event(place, place, END, end_value("cancelled", None, None))
        if not found.is_over:
            return None
        self._is_lossy = True
        return Event(place, place, END, end_value(found.state, found.error_code, found.error))

    def _find(self) -> ResearchView | None:
        """This asking as the database has it; None when nobody wants it any more."""
        with self._app.app_context():
            found = research.find_job(db.session(), self._asked.job_id)
            return found if found is not None and found.uid == self._asked.uid else None


def end_value(state: str, code: str | None, error: str | None) -> dict[str, Any]:
    """The value of an `end` event that the database tells of."""
    reasons = {"succeeded": "stop", "failed": "error"}
    return {
        "state": state, "finish_reason": reasons.get(state, "cancelled"),
        "error_code": code, "error": error, "usage": {},
    }  # fmt: skip


def research_models_wanted() -> ResearchModels:
    """What the operator set."""
    return ResearchModels(settings().research_model, settings().vision_models)


def ask(caller: Identity, *, question_text: str, image_file: str | None) -> Asked:
    """Accept a question and commit it. Raises NoCapacity, RateLimited."""
    try:
        with unit_of_work() as session:
            return research.ask(
                session, caller, question_text=question_text, image_file=image_file,
                chosen=_choose(caller, has_image=image_file is not None),
                reply_to=live_runs().hub.channel,
                timeout_seconds=settings().research_timeout_seconds, now=utc_now(),
            )  # fmt: skip
    except BaseException:
        forget_image(image_file)
        raise


def ask_anew(
    caller: Identity, job: ResearchView, *, question_text: str, image_file: str | None = None
) -> Asked:
    """Ask a job again; a new image replaces its own. Raises NoCapacity, RateLimited."""
    kept = image_file or job.image_file
    try:
        with unit_of_work() as session:
            left = research.live_runs(session, job.id)
            asked = research.ask_anew(
                session, caller, job.id, question_text=question_text, image_file=kept,
                chosen=_choose(caller, has_image=kept is not None),
                reply_to=live_runs().hub.channel,
                timeout_seconds=settings().research_timeout_seconds, now=utc_now(),
            )  # fmt: skip
    except BaseException:
        forget_image(image_file)
        raise
    if image_file:
        forget_image(job.image_file)
    _cancel(left)
    return asked


def delete(job: ResearchView) -> None:
    """Forget a job, its image and what works for it."""
    with unit_of_work() as session:
        left = research.live_runs(session, job.id)
        research.delete_job(session, job.id)
    _cancel(left)
    forget_image(job.image_file)


def follow_new(caller: Identity, asked: Asked) -> LiveResearch:
    """Read a job that has just been committed, then ring for it."""
    reader = live_runs().hub.subscribe(asked.stream_id, replay=False)
    found = LiveResearch(caller, asked, reader)
    release()
    ring(asked)
    return found


def follow(caller: Identity, job: ResearchView) -> LiveResearch:
    """Read a job that is under way from its beginning."""
    asked = Asked(job.id, job.uid)
    return LiveResearch(caller, asked, live_runs().hub.subscribe(asked.stream_id))


def ring(asked: Asked) -> None:
    """Wake a worker. Without Redis the job waits in the database: it is rung for later."""
    timeout = int(settings().research_timeout_seconds) + 120
    try:
        live_runs().queue.enqueue(
            RESEARCH_TASK, str(asked.job_id), queue=RESEARCH, timeout_seconds=timeout
        )
    except (redis.RedisError, OSError) as error:
        log.warning("research %s waits for Redis: %s", asked.job_id, error)


def store_image() -> str | None:
    """The request's `image`, decoded, made small and stored; its file, None without one.

    Raises InvalidInput for what is no picture, TooLarge.
    """
    sent = request.files.get("image") if request.files else None
    if sent is None or not sent.filename:
        return None
    data = sent.stream.read(QUESTION_BYTES + 1)
    if len(data) > QUESTION_BYTES:
        raise TooLarge(f"The image has more than {QUESTION_BYTES // 2**20} MB.", field="image")
    if not data:
        raise InvalidInput("The image is empty.", field="image")
    picture, suffix = make_question_image(data)
    return storage().put_bytes(IMAGE_KIND, picture, suffix=suffix).name


def forget_image(name: str | None) -> None:
    """Remove an image that no job has any more."""
    if name:
        storage().delete(name)


def labelled(events: Iterator[Event]) -> Iterator[tuple[str, Event]]:
    """Each event with the step that speaks at that moment."""
    speaker = ""
    for event in events:
        if event.kind == STEP and event.value.get("speaks"):
            speaker = str(event.value["step"])
        else:
            yield speaker, event


def event_json(speaker: str, event: Event) -> str | None:
    """`{"step","token","done"}` of a text or of a step's news; None for everything else."""
    if event.kind == TEXT:
        value = {"step": speaker, "token": event.value, "done": False}
    elif event.kind == STEP:
        value = {**event.value, "token": "", "done": False}
    else:
        return None
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _choose(caller: Identity, *, has_image: bool) -> Chosen:
    return research_models.choose_models(
        db.session(), caller, research_models_wanted(), has_image=has_image, now=utc_now(),
        offline_after_seconds=settings().offline_after_seconds,
    )  # fmt: skip


def _cancel(left: list[research.LiveStepRun]) -> None:
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    for run in left:
        live.cancel(app, redis_client(), run.run_id, run.uid)
