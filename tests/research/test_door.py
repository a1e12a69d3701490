"""deepresearch as its clients use it, on a hub of real processes."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from PIL import Image

from app.core.models import Run
from tests.fixtures.hub import Caller, RunningHub
from tests.fixtures.waiting import eventually
from tests.research.conftest import PutOnline
from tests.research.engine import QUESTIONS, Web, answer_to, frames

pytestmark = pytest.mark.slow
ASK = {"question_text": "Tell me about the tower."}
FIELDS = {
    "id", "client", "client_username", "question_text", "answer_text", "image", "created_at",
    "state", "error", "sources",
}  # fmt: skip


def picture(size: tuple[int, int] = (40, 30), kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, kind)
    return out.getvalue()


def json_of(answer: httpx.Response, status: int = 201) -> Any:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def test_the_report_flows_as_plain_text_and_is_kept_as_it_flowed(
    api: httpx.Client, asker: Caller, online: PutOnline
) -> None:
    online("writer")

    answer = api.post("/deepresearch/", json={**ASK, "client": asker.id})

    assert answer.status_code == 201
    assert answer.headers["content-type"].startswith("text/plain")
    kept = api.get(f"/deepresearch/{answer.headers['x-deepresearch-id']}/").json()
    assert set(kept) == FIELDS
    assert kept["answer_text"] == answer.text
    assert kept["client"] == asker.id
    assert kept["image"] is None
    for question in QUESTIONS:
        assert f"## {question}\n\n{answer_to(question)}" in answer.text
    assert "## Conclusion\n\nThe tower is high" in answer.text
    assert [source["number"] for source in kept["sources"]] == [1, 2]
    for source in kept["sources"]:
        assert f"{source['number']}. {source['title']} – <{source['url']}>" in answer.text


def test_what_the_pages_say_reaches_the_model_as_fenced_data(
    api: httpx.Client, online: PutOnline, web: Web
) -> None:
    engine = online("reader").engine

    api.post("/deepresearch/", json=ASK)

    about_height = next(
        call["messages"][-1]["content"]
        for call, subject in zip(engine.calls, engine.asked, strict=True)
        if subject == QUESTIONS[0]
    )
    assert "three hundred and thirty metres" in about_height
    assert "Imprint and cookies" not in about_height
    assert "prompt ››› now" in about_height
    assert set(QUESTIONS) <= set(web.queries)


def test_a_model_that_goes_round_in_circles_is_stopped(
    api: httpx.Client, online: PutOnline, research_hub: RunningHub
) -> None:
    sentence = "The tower is three hundred and thirty metres high."
    words = len(sentence.split())
    # Without being stopped it would fall silent, and the run fail.
    online("circler", conclusion=f"{sentence} " * 9, holds={"conclude": 6 * words})

    answer = api.post("/deepresearch/", json=ASK)

    assert answer.text.count(sentence) == 1
    kept = api.get(f"/deepresearch/{answer.headers['x-deepresearch-id']}/").json()
    assert kept["state"] == "succeeded"
    eventually(
        lambda: research_hub.run_of("circler").state == "cancelled",
        what="the run is cancelled",
    )


def test_every_piece_leaves_at_once(api: httpx.Client, online: PutOnline) -> None:
    """The first text is there while the last answer has not been asked for."""
    engine = online("slow", pause_seconds=0.05).engine

    with api.stream("POST", "/deepresearch/", json=ASK) as answer:
        flow = answer.iter_raw()
        assert next(flow).startswith(b"## Plan")
        assert "conclude" not in engine.asked
        pieces = list(flow)

    assert len(pieces) > 20


def test_sub_questions_are_answered_at_the_same_time_on_several_nodes(
    api: httpx.Client, online: PutOnline
) -> None:
    first = online("wide", pause_seconds=0.05)
    second = online("wide", pause_seconds=0.05)

    api.post("/deepresearch/", json=ASK)

    assert set(QUESTIONS) & set(first.engine.asked)
    assert set(QUESTIONS) & set(second.engine.asked)
    asked = [*first.engine.asked, *second.engine.asked]
    assert sorted(asked) == sorted(["plan", *QUESTIONS, "conclude"])


def test_json_waits_for_the_report(api: httpx.Client, online: PutOnline) -> None:
    online("writer-json")

    made = json_of(api.post("/deepresearch/", json=ASK, headers={"Accept": "application/json"}))

    assert set(made) == FIELDS
    assert made["state"] == "succeeded"
    assert made["answer_text"].startswith("## Plan")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "text/plain"),
        ("application/json, text/plain, */*", "text/plain"),
        ("text/event-stream", "text/event-stream"),
        ("text/event-stream, application/json;q=0.5", "text/event-stream"),
        ("application/json", "application/json"),
        ("image/png", "text/plain"),
    ],
)
def test_accept_picks_another_form_only_without_the_routes_own(
    api: httpx.Client, online: PutOnline, accept: str, kind: str
) -> None:
    online("writer-accept")

    answer = api.post("/deepresearch/", json=ASK, headers={"Accept": accept})

    assert answer.status_code == 201
    assert answer.headers["content-type"].split(";")[0] == kind


def test_events_show_the_steps_and_whose_text_it_is(
    api: httpx.Client, online: PutOnline
) -> None:
    online("writer-sse")

    answer = api.post("/deepresearch/", json=ASK, headers={"Accept": "text/event-stream"})

    found = frames(answer.text)
    last = found.pop()
    assert all({"step", "token", "done"} <= set(one) and not one["done"] for one in found)
    assert last["done"]
    assert last["reason"] == "stop"
    done = {one["step"] for one in found if one.get("state") == "done"}
    assert done == {"plan", "gather", "answer 1", "answer 2", "answer 3", "write"}
    second = "".join(one["token"] for one in found if one["step"] == "answer 2")
    assert second.strip().startswith(f"## {QUESTIONS[1]}")
    kept = api.get(f"/deepresearch/{last['id']}/").json()
    assert "".join(one["token"] for one in found) == kept["answer_text"]


def test_a_research_outlives_its_connection(api: httpx.Client, online: PutOnline) -> None:
    online("patient", pause_seconds=0.05)

    with api.stream("POST", "/deepresearch/", json=ASK) as answer:
        path = f"/deepresearch/{answer.headers['x-deepresearch-id']}/"
        next(answer.iter_raw())

    kept = eventually(
        lambda: found if (found := api.get(path).json())["answer_text"] else None, timeout=30
    )
    assert kept["state"] == "succeeded"
    assert "## Conclusion" in kept["answer_text"]


def test_a_new_question_is_researched_and_an_old_one_is_not(
    api: httpx.Client, online: PutOnline
) -> None:
    engine = online("changing").engine
    made = json_of(api.post("/deepresearch/", json=ASK, headers={"Accept": "application/json"}))
    path = f"/deepresearch/{made['id']}/"
    count = len(engine.calls)

    same = api.put(path, json={**ASK, "client": made["client"]})
    empty = api.patch(path, json={})
    assert json_of(same, 200) == json_of(empty, 200) == made
    assert len(engine.calls) == count

    changed = api.patch(path, json={"question_text": "And the bridge?"})
    assert changed.status_code == 200
    assert changed.headers["content-type"].startswith("text/plain")
    kept = api.get(path).json()
    assert kept["question_text"] == "And the bridge?"
    assert kept["answer_text"] == changed.text
    assert kept["created_at"] == made["created_at"]


def test_regenerate_takes_an_empty_body(api: httpx.Client, online: PutOnline) -> None:
    engine = online("again").engine
    made = json_of(api.post("/deepresearch/", json=ASK, headers={"Accept": "application/json"}))

    for body in ({"json": {}}, {}, {"json": ASK}):
        again = api.post(f"/deepresearch/{made['id']}/regenerate/", **body)  # type: ignore[arg-type]
        assert again.status_code == 201
        assert again.text == made["answer_text"]

    assert engine.asked.count("plan") == 4
    assert len(api.get("/deepresearch/").json()) == 1


def test_asking_anew_ends_the_reading_of_the_first(
    api: httpx.Client, research_hub: RunningHub, online: PutOnline
) -> None:
    engine = online("restless", pause_seconds=0.2).engine
    begun = threading.Event()
    ended: list[dict[str, Any]] = []
    ids: list[str] = []

    def read() -> None:
        headers = {"Accept": "text/event-stream"}
        with api.stream("POST", "/deepresearch/", json=ASK, headers=headers) as answer:
            ids.append(answer.headers["x-deepresearch-id"])
            text = ""
            for piece in answer.iter_text():
                text += piece
                if "## Plan" in text:
                    begun.set()
            ended.append(frames(text)[-1])

    reader = threading.Thread(target=read)
    reader.start()
    assert begun.wait(60)
    engine.pause_seconds = 0.0
    again = api.post(f"/deepresearch/{ids[0]}/regenerate/", json={})
    reader.join(60)

    assert "## Conclusion" in again.text
    assert ended[0]["done"]
    assert ended[0]["reason"] == "cancelled"
    with research_hub.sessions() as session:
        live = session.query(Run).filter(
            Run.model_name == "restless", Run.state.in_(("queued", "running"))
        )
        eventually(lambda: live.count() == 0)


def test_deleting_stops_it(
    api: httpx.Client, research_hub: RunningHub, online: PutOnline
) -> None:
    online("doomed", pause_seconds=0.15)
    with api.stream("POST", "/deepresearch/", json=ASK) as answer:
        path = f"/deepresearch/{answer.headers['x-deepresearch-id']}/"
        flow = answer.iter_text()
        next(flow)
        assert api.delete(path).status_code == 204
        text = "".join(flow)

    assert "was stopped" in text
    assert api.get(path).status_code == 404


def test_a_text_may_come_as_a_form_with_an_image_for_a_vision_model(
    api: httpx.Client, asker: Caller, online: PutOnline, research_hub: RunningHub
) -> None:
    writer = online("writer-form").engine
    viewer = online("qwen2.5-vl-7b", context_tokens=2048).engine

    answer = api.post(
        "/deepresearch/",
        data={"client": str(asker.id), **ASK},
        files={"image": ("tower.png", picture((3000, 20)), "image/png")},
    )

    assert answer.status_code == 201
    assert viewer.asked == ["look"]
    assert "look" not in writer.asked
    sent = viewer.calls[0]["messages"][0]["content"][1]["image_url"]["url"]
    assert sent.startswith("data:image/jpeg;base64,")
    assert answer.text.startswith("## The image\n\nA red tower on a green field.")
    plan = next(call for call in writer.calls if "You plan" in call["messages"][0]["content"])
    assert "A red tower on a green field." in plan["messages"][-1]["content"]

    kept = api.get(f"/deepresearch/{answer.headers['x-deepresearch-id']}/").json()
    shown = httpx.get(kept["image"])  # as an <img> asks: without a header
    assert shown.status_code == 200
    assert Image.open(io.BytesIO(shown.content)).size == (1536, 10)
    api.delete(f"/deepresearch/{kept['id']}/")
    assert httpx.get(kept["image"]).status_code == 404


def test_an_image_without_a_vision_model_is_said_so(
    api: httpx.Client, online: PutOnline, research_hub: RunningHub
) -> None:
    online("writer-blind")

    answer = api.post(
        "/deepresearch/", data=ASK, files={"image": ("a.png", picture(), "image/png")}
    )

    assert answer.status_code == 503
    assert "vision model" in answer.json()["detail"]
    assert answer.headers["retry-after"]
    assert api.get("/deepresearch/").json() == []
    left = Path(research_hub.environment["WEFT_DATA_DIR"]) / "files" / "research"
    assert list(left.glob("*")) == []


@pytest.mark.parametrize(
    ("image", "status"),
    [
        (b"GIF89a and nothing more", 400),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 400),
        (picture()[:50], 400),
        (b"", 400),
        (b"\x89PNG" + bytes(10 * 2**20), 413),
    ],
    ids=["another kind", "vectors", "half", "nothing", "too large"],
)
def test_what_is_no_picture_is_refused(
    api: httpx.Client, online: PutOnline, image: bytes, status: int
) -> None:
    online("llava-refusing")

    answer = api.post(
        "/deepresearch/", data=ASK, files={"image": ("a.png", image, "image/png")}
    )

    assert answer.status_code == status, answer.text
    assert api.get("/deepresearch/").json() == []


def test_no_model_online_is_a_503(api: httpx.Client) -> None:
    answer = api.post("/deepresearch/", json=ASK)

    assert answer.status_code == 503
    assert "model" in answer.json()["detail"]


def test_an_engine_that_refuses_is_a_status_before_any_text(
    api: httpx.Client, online: PutOnline
) -> None:
    online("refusing", healthy=True).engine.plan = ""

    answer = api.post("/deepresearch/", json=ASK)

    assert answer.status_code == 502
    assert answer.json() == {"detail": "The model gave no answer."}
    kept = api.get("/deepresearch/").json()[0]
    assert (kept["state"], kept["answer_text"]) == ("failed", None)
    assert kept["error"] == "The model gave no answer."
