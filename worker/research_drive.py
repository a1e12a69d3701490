"""One research job from its question to its report, resumable at every step."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import gevent
from gevent.pool import Group
from gevent.queue import Queue

from app.core.clock import utc_now
from app.core.datasets.index_shelf import IndexShelf
from app.core.domain.research import Source, StepKind, StepState
from app.core.research import prompts, report
from app.core.research.own_data import OwnData
from app.core.research.plan import one_line, parse_plan
from app.core.research.prompts import Budget
from app.core.research.search import NoSearch, WebSearch
from app.core.research.sources import Finder, Wanted, gather
from app.core.services import dataset_work, research_work
from app.core.services.dataset_work import Searchable
from app.core.services.research_work import ResearchClaim, Step
from app.core.storage import Storage
from worker.context import WorkerContext
from worker.research_asking import Answer, Asker, Lost, Question, StepFailed
from worker.research_report import Report

_MEDIA_TYPES = {"png": "image/png", "jpg": "image/jpeg"}


class Drive:
    """Walks through the steps. Steps that are done already only add their part of the report."""

    def __init__(
        self, context: WorkerContext, claim: ResearchClaim, asker: Asker, written: Report
    ) -> None:
        self._context = context
        self._claim = claim
        self._asker = asker
        self._report = written
        self._budget = Budget(claim.context_tokens)
        self._image_text = ""
        self.steps: list[Step] = []
        self.sources: list[Source] = []

    def run(self) -> None:
        """Research and write. Raises StepFailed when it can't be done, Lost when it is taken."""
        self._load()
        if not self.steps:
            first = [(StepKind.LOOK, "Look at the image")] if self._claim.image_file else []
            self._add([*first, (StepKind.PLAN, "Plan sub-questions")])
        if self._claim.image_file:
            self._image_text = self._look(self._step(StepKind.LOOK))
        questions = self._plan(self._step(StepKind.PLAN))
        self._gather(self._step(StepKind.GATHER), questions)
        findings = self._answer([one for one in self.steps if one.kind is StepKind.ANSWER])
        self._conclude(self._step(StepKind.WRITE), findings)
        self._report.add(report.sources_text(self.sources))

    # ---- The steps -------------------------------------------------------------

    def _look(self, step: Step) -> str:
        self._report.speak(step)
        if step.state is not StepState.DONE:
            url = self._image_url()
            answer = self._ask(
                Question(
                    step,
                    lambda shrink: prompts.ask_to_look(
                        self._claim.question_text, url, Budget(None, shrink)
                    ),
                    needs_eyes=True,
                )
            )
            self._done(step, answer.text)
        self._report.add(report.look_text(step.result))
        return step.result

    def _plan(self, step: Step) -> list[str]:
        self._report.speak(step)
        if step.state is not StepState.DONE:
            answer = self._ask(
                Question(
                    step,
                    lambda shrink: prompts.ask_for_plan(
                        self._claim.question_text, self._image_text, self._shrunk(shrink)
                    ),
                )
            )
            questions = parse_plan(answer.text, self._claim.question_text)
            later = [
                (StepKind.GATHER, "Gather sources"),
                *((StepKind.ANSWER, question) for question in questions),
                (StepKind.WRITE, "Conclusion"),
            ]
            self._done(step, answer.text, {"questions": questions}, later)
        questions = list(step.data["questions"])
        self._report.add(report.plan_text(questions))
        return questions

    def _gather(self, step: Step, questions: Sequence[str]) -> None:
        self._report.speak(step)
        if step.state is not StepState.DONE:
            self._begin(step)
            wanted = Wanted(
                self._claim.caller.account_id,
                one_line(self._claim.question_text, 300),
                tuple(questions),
            )
            found = gather(self._finders(), wanted)
            kept = [source.to_json() for source in found.sources]
            self._done(step, "", {"sources": kept, "notes": list(found.notes)})
        self.sources = [Source.from_json(one) for one in step.data["sources"]]
        self._report.add(report.gather_text(self.sources, step.data["notes"]))

    def _answer(self, steps: Sequence[Step]) -> list[tuple[str, str]]:
        """All sub-questions at once; the report takes the answers in the plan's order."""
        feeds: dict[int, Queue[str | None]] = {}
        group = Group()
        try:
            for step in steps:
                if not step.state.is_final:
                    feed = feeds[step.id] = Queue()
                    group.spawn(self._answer_one, step, feed)
            for step in steps:
                self._report.speak(step)
                self._report.add(report.section_head(step.title))
                self._relay(step, feeds.get(step.id))
        finally:
            group.kill()
        findings = [(one.title, one.result) for one in steps if one.state is StepState.DONE]
        if not findings:
            last = steps[-1]
            raise StepFailed("engine_error", last.error or "No sub-question could be answered.")
        return findings

    def _answer_one(self, step: Step, feed: Queue[str | None]) -> None:
        """In a greenlet of its own. Failures become the step's; the feed always ends."""
        question = Question(
            step,
            lambda shrink: prompts.ask_for_answer(
                self._claim.question_text, step.title, self.sources, self._image_text,
                self._shrunk(shrink),
            ),
            source_count=len(self.sources),
        )  # fmt: skip
        try:
            answer = self._ask(question, feed.put)
            self._done(step, answer.text, {"is_cut": answer.is_cut})
        except StepFailed as error:
            self._failed(step, error)
        except Lost:
            pass  # the job's keeper sees it too, and ends the drive
        finally:
            feed.put(None)

    def _conclude(self, step: Step, findings: Sequence[tuple[str, str]]) -> None:
        self._report.speak(step)
        self._report.add(report.section_head(step.title))
        if step.state is not StepState.DONE:
            question = Question(
                step,
                lambda shrink: prompts.ask_for_conclusion(
                    self._claim.question_text, findings, self.sources, self._shrunk(shrink)
                ),
                source_count=len(self.sources),
            )
            answer = self._ask(question, self._report.add)
            self._done(step, answer.text, {"is_cut": answer.is_cut})
        else:
            self._report.add(step.result)
        self._report.add(report.section_end(step.result, is_cut=bool(step.data.get("is_cut"))))

    # ---- What steps share --------------------------------------------------------

    def _relay(self, step: Step, feed: Queue[str | None] | None) -> None:
        """A section's text as it comes, or as it stands in the database."""
        if feed is None:
            self._report.add(step.result)
        else:
            while (piece := feed.get()) is not None:
                self._report.add(piece)
        if not step.state.is_final:
            raise Lost
        if step.state is StepState.FAILED:
            gap = "\n\n" if step.result else ""
            self._report.add(gap + report.failed_section(step.error or ""))
        else:
            is_cut = bool(step.data.get("is_cut"))
            self._report.add(report.section_end(step.result, is_cut=is_cut))

    def _ask(self, question: Question, sink: Any = None) -> Answer:
        self._begin(question.step)
        try:
            return self._asker.answer(question, sink or _nobody)
        except StepFailed as error:
            if question.step.kind is not StepKind.ANSWER:
                self._failed(question.step, error)
            raise

    def _begin(self, step: Step) -> None:
        self._asker.do(lambda session: research_work.begin_step(session, step, now=utc_now()))
        step.state = StepState.RUNNING
        self._report.step(step, StepState.RUNNING)

    def _done(
        self,
        step: Step,
        result: str,
        data: dict[str, Any] | None = None,
        later: Sequence[tuple[StepKind, str]] = (),
    ) -> None:
        """A step is done, and what follows from it is known, in one transaction."""

        def write(session: Any) -> None:
            research_work.end_step(
                session, step, state=StepState.DONE, result=result, data=data, now=utc_now()
            )
            research_work.add_steps(session, self._claim, later)

        self._asker.do(write)
        step.state, step.result, step.data = StepState.DONE, result, data or {}
        self._report.step(step, StepState.DONE)
        if later:
            self._load()

    def _failed(self, step: Step, error: StepFailed) -> None:
        self._asker.do(
            lambda session: research_work.end_step(
                session, step, state=StepState.FAILED, result=step.result,
                error=error.message, now=utc_now(),
            )
        )  # fmt: skip
        step.state, step.error = StepState.FAILED, error.message
        self._report.step(step, StepState.FAILED)

    def _add(self, steps: Sequence[tuple[StepKind, str]]) -> None:
        self._asker.do(lambda session: research_work.add_steps(session, self._claim, steps))
        self._load()

    def _load(self) -> None:
        claim = self._claim
        self.steps = self._asker.do(
            lambda session: research_work.load_steps(session, claim.job_id)
        )
        for step in self.steps:
            if step.state is StepState.WAITING:
                self._report.step(step, StepState.WAITING)

    def _step(self, kind: StepKind) -> Step:
        found = next(step for step in self.steps if step.kind is kind)
        if found.state is StepState.FAILED:
            raise StepFailed("engine_error", found.error or "The step failed.")
        return found

    def _shrunk(self, shrink: int) -> Budget:
        return Budget(self._budget.context_tokens, shrink)

    def _finders(self) -> list[Finder]:
        """Where to look: what the caller has, then the web."""
        settings, url = self._context.settings, self._context.settings.search_url
        shelf = IndexShelf(Storage(settings.storage_url, settings.data_dir), settings.data_dir)
        own = OwnData(self._own_datasets, shelf.path, site_url=settings.site_url)
        return [own, WebSearch(url, self._context.policy) if url else NoSearch()]

    def _own_datasets(self, account_id: int) -> list[Searchable]:
        with self._context.sessions() as session:
            return dataset_work.list_searchable(session, account_id)

    def _image_url(self) -> str:
        name = str(self._claim.image_file)
        settings = self._context.settings
        data = b"".join(Storage(settings.storage_url, settings.data_dir).blocks(name))
        media_type = _MEDIA_TYPES.get(name.rpartition(".")[2], "image/jpeg")
        return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _nobody(_text: str) -> None:
    """Where text goes that is no part of the report."""
    gevent.sleep(0)
