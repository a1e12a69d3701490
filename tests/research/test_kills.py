"""kill -9 of workers and nodes while a report is written: it is complete, no text is asked twice.

Where a test kills, the engine has fallen silent (`holds`): it is killed there, however slow
the machine is.
"""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import httpx2 as httpx
import pytest
import sqlalchemy as sa
from redis import Redis

from app.core.models import Replica, ResearchJob, ResearchStep
from app.core.stream import partial_text
from tests.fixtures.hub import MakeHub, RunningHub
from tests.fixtures.waiting import eventually
from tests.research.conftest import put_online
from tests.research.engine import QUESTIONS, ResearchEngine, Web, answer_to

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("research-kills")]
ASK = {"question_text": "Tell me about the tower."}


@pytest.fixture(scope="module")
def alert_hub(make_hub: MakeHub, web: Web) -> Iterator[RunningHub]:
    """A hub that is quick to notice the dead."""
    hub = make_hub(
        SEARCH_URL=web.url, RUN_LEASE_S="3", FIRST_TOKEN_TIMEOUT_S="60", IDLE_TIMEOUT_S="60"
    )
    yield hub
    hub.stop()


@pytest.fixture
def own_hub(alert_hub: RunningHub) -> Iterator[RunningHub]:
    """The hub, all of it alive, and each part for this test to kill. No node is left."""
    alert_hub.mend()
    yield alert_hub
    with alert_hub.sessions.begin() as session:
        session.execute(sa.update(Replica).values(state="stopped"))


class Reading:
    """A report that is read in a thread of its own while things die."""

    def __init__(self, hub: RunningHub) -> None:
        self.text = ""
        self.id = ""
        caller = hub.caller()
        self.client = httpx.Client(base_url=hub.url, headers=caller.headers, timeout=120)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with self.client.stream("POST", "/deepresearch/", json=ASK) as answer:
            self.id = answer.headers["x-deepresearch-id"]
            for piece in answer.iter_text():
                self.text += piece

    def wait_for(self, text: str) -> None:
        def has_it() -> bool:
            assert text in self.text, self.text
            return True

        eventually(has_it, timeout=60, what=f"the report has {text!r}")

    def finish(self) -> None:
        self._thread.join(90)
        assert not self._thread.is_alive(), self.text

    def kept(self) -> dict[str, object]:
        found: dict[str, object] = self.client.get(f"/deepresearch/{self.id}/").json()
        return found


@pytest.fixture
def read(own_hub: RunningHub) -> Iterator[Callable[[], Reading]]:
    """Begin to read a report."""
    begun: list[Reading] = []

    def begin() -> Reading:
        begun.append(Reading(own_hub))
        return begun[-1]

    yield begin
    for reading in begun:
        reading.client.close()


def assert_complete(text: str) -> None:
    """Every part is there, once, and no answer is broken."""
    for question in QUESTIONS:
        assert text.count(f"## {question}\n\n{answer_to(question)}\n\n") == 1, text
    assert text.count("## Plan") == text.count("## Conclusion") == 1
    assert text.count("The tower is high and old, as the findings say [1] .") == 1
    assert text.count("## Sources") == 1


def steps_done(hub: RunningHub, job_id: str) -> list[str]:
    query = sa.select(ResearchStep.title).where(
        ResearchStep.state == "done", ResearchStep.job_id == int(job_id)
    )
    with hub.sessions() as session:
        return list(session.scalars(query.order_by(ResearchStep.position)))


def told(hub: RunningHub, job_id: str, title: str) -> str:
    """What the step's runs have answered so far, as it is kept for whoever goes on."""
    query = sa.select(ResearchStep.runs).where(
        ResearchStep.title == title, ResearchStep.job_id == int(job_id)
    )
    with hub.sessions() as session:
        runs = session.scalar(query) or []
    with Redis.from_url(hub.redis.url) as store:
        store.ping()  # by its answer, all that the dead had sent is written
        return "".join(partial_text(store, run["uid"])[0] for run in runs)


def drivers(hub: RunningHub, job_id: str) -> int:
    """How many workers have taken the job so far."""
    with hub.sessions() as session:
        return session.get_one(ResearchJob, int(job_id)).attempt


def test_two_killed_workers_leave_one_complete_report(
    own_hub: RunningHub, read: Callable[[], Reading]
) -> None:
    first, second, third = QUESTIONS
    engine = ResearchEngine(holds={first: 3, second: 0, third: 3, "conclude": 3})
    put_online(own_hub, "durable", engine)
    reading = read()

    reading.wait_for(f"## {first}\n\nAbout")
    eventually(lambda: second in engine.asked, what="the second is asked")
    eventually(lambda: told(own_hub, reading.id, third), what="the third has begun")
    own_hub.kill("worker")
    assert [bool(told(own_hub, reading.id, one)) for one in QUESTIONS] == [True, False, True]
    engine.let_go(*QUESTIONS)
    own_hub.start("worker")
    reading.wait_for("## Conclusion\n\nThe tower is")
    own_hub.kill("worker")
    engine.let_go()
    own_hub.start("worker")
    reading.finish()

    assert_complete(reading.text)
    kept = reading.kept()
    assert kept["state"] == "succeeded"
    assert kept["answer_text"] == reading.text
    # What had begun is continued, never told from its beginning twice. What was asked, and
    # of whose answer nobody had a word, is asked once more.
    asked = Counter(engine.asked)
    begun = (first, third, "conclude")
    assert asked == Counter(
        {"plan": 1, second: 2, **dict.fromkeys((*begun, *map("continue {}".format, begun)), 1)}
    )
    assert steps_done(own_hub, reading.id) == [
        "Plan sub-questions",
        "Gather sources",
        *QUESTIONS,
        "Conclusion",
    ]


def test_a_worker_that_stops_hands_its_research_over(
    own_hub: RunningHub, read: Callable[[], Reading]
) -> None:
    engine = ResearchEngine(holds=dict.fromkeys(QUESTIONS, 3))
    put_online(own_hub, "durable", engine)
    reading = read()
    reading.wait_for(f"## {QUESTIONS[0]}\n\nAbout")
    own_hub.start("worker-2")
    stopping = own_hub.processes.pop("worker")

    stopping.send_signal(signal.SIGTERM)
    eventually(lambda: drivers(own_hub, reading.id) == 2, what="it is taken over")
    engine.let_go()
    reading.finish()

    assert stopping.wait(60) == 0
    assert_complete(reading.text)
    assert reading.kept()["answer_text"] == reading.text
    assert max(Counter(engine.asked).values()) == 1
    assert not any(subject.startswith("continue") for subject in engine.asked)


def test_a_killed_node_leaves_one_complete_report(
    own_hub: RunningHub, read: Callable[[], Reading]
) -> None:
    dying = ResearchEngine(holds={QUESTIONS[0]: 3})
    dying_node = put_online(own_hub, "durable", dying)
    reading = read()
    reading.wait_for(f"## {QUESTIONS[0]}\n\nAbout")
    staying = ResearchEngine()
    put_online(own_hub, "durable", staying)

    dying_node.server.stop()
    reading.finish()

    assert_complete(reading.text)
    assert reading.kept()["answer_text"] == reading.text
    assert f"continue {QUESTIONS[0]}" in staying.asked
    assert "conclude" in staying.asked


def test_a_connection_that_breaks_in_an_answer_is_gone_on_from(
    own_hub: RunningHub, read: Callable[[], Reading]
) -> None:
    engine = ResearchEngine(dies_after=5, dies_in=QUESTIONS[1])
    put_online(own_hub, "shaky", engine)

    reading = read()
    reading.finish()

    assert_complete(reading.text)
    assert f"continue {QUESTIONS[1]}" in engine.asked


def test_another_model_takes_over_when_the_first_leaves_the_network(
    own_hub: RunningHub, read: Callable[[], Reading]
) -> None:
    first = put_online(own_hub, "first", ResearchEngine(holds={QUESTIONS[0]: 3}))
    reading = read()
    reading.wait_for(f"## {QUESTIONS[0]}\n\nAbout")
    second = ResearchEngine()
    put_online(own_hub, "second", second)
    first.server.stop()
    reading.finish()

    assert_complete(reading.text)
    assert "conclude" in second.asked
