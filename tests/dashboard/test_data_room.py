"""The room for data: upload with and without scripts, look, change, take along, delete."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session, sessionmaker
from werkzeug.test import TestResponse

from app.config import Settings
from app.core.datasets.index_file import IndexWriter
from app.core.models import Dataset
from app.core.storage import Storage
from tests.dashboard.conftest import HOSTILE, Browser
from tests.dashboard.test_every_page import inline_code
from tests.dashboard.test_rooms import visible
from tests.fixtures.accounts import Person
from tests.uploading import CSV, NOTES, csv_of

SCRIPT = {"Accept": "application/json"}


def upload(
    browser: Browser, data: bytes = CSV, name: str = "cities.csv", **headers: str
) -> TestResponse:
    body = {"csrf_token": browser.csrf_token(), "file": (io.BytesIO(data), name)}
    return browser.client.post("/data", data=body, headers=headers)


def page_of(browser: Browser, data: bytes = CSV, name: str = "cities.csv") -> str:
    """The path of a fresh dataset's page."""
    answer = upload(browser, data, name)
    assert answer.status_code == 303, answer.text
    return str(answer.location)


def stored(settings: Settings) -> list[Path]:
    return [path for path in (settings.data_dir / "files").rglob("*") if path.is_file()]


@pytest.fixture
def set_row(sessions: sessionmaker[Session]) -> Callable[..., None]:
    """Change the only dataset's row, as a worker would."""

    def change(**values: Any) -> None:
        with sessions.begin() as session:
            session.execute(sa.update(Dataset).values(**values))

    return change


def test_a_fresh_account_is_invited(browser: Browser) -> None:
    page = browser.open("/data").text

    assert "No data yet" in page
    assert 'type="file"' in page
    assert "Research reads your own data too" in browser.open("/research").text


def test_a_plain_form_uploads_and_leads_to_the_dataset(browser: Browser) -> None:
    path = page_of(browser)
    page = browser.open(path)
    text = visible(page.text)

    assert re.fullmatch("/data/[0-9a-f]{24}", path)
    assert "Being read" in text
    assert "Rows 2 Columns 2" in text
    assert "The first 2 of 2 rows" in text
    assert "Köln; am Rhein" in text
    assert inline_code(page.text) == []
    listed = visible(browser.open("/data").text)
    assert "cities.csv" in listed
    assert "CSV" in listed


def test_a_script_gets_the_address_as_json(browser: Browser) -> None:
    answer = upload(browser, **SCRIPT)
    body = answer.get_json()

    assert answer.status_code == 201
    assert body["name"] == "cities.csv"
    assert browser.open(body["href"]).status_code == 200


def test_a_name_that_is_taken_gets_a_number(browser: Browser) -> None:
    upload(browser)
    assert upload(browser, **SCRIPT).get_json()["name"] == "cities (2).csv"


def test_a_refused_file_is_told_beside_the_field(browser: Browser, settings: Settings) -> None:
    for data, name, message in (
        (b"", "a.csv", "Dataset file is empty"),
        (b"\0\1\2" * 50, "a.exe", "This is none of the formats"),
        (b"", "", "Choose a file."),
    ):
        answer = upload(browser, data, name)
        assert answer.status_code == 400
        assert message in visible(answer.text)
        assert 'aria-invalid="true"' in answer.text
        said = upload(browser, data, name, **SCRIPT)
        assert said.status_code == 400
        assert said.get_json()["message"]
    assert stored(settings) == []


def test_a_file_over_the_limit_is_413(
    make_app: Callable[..., Flask], owner: Person, settings: Settings
) -> None:
    browser = Browser(owner.signed_in(make_app(dataset_max_bytes=1000).test_client()))

    assert upload(browser, csv_of(200)).status_code == 413
    assert upload(browser, csv_of(200), **SCRIPT).get_json()["code"] == "too_large"
    assert stored(settings) == []


def test_a_form_of_a_foreign_page_uploads_nothing(browser: Browser, settings: Settings) -> None:
    for fields in ({}, {"csrf_token": "x"}):
        body = {**fields, "file": (io.BytesIO(CSV), "a.csv")}
        assert browser.client.post("/data", data=body).status_code == 400
    with_header = browser.client.post(
        "/data", data={"file": (io.BytesIO(CSV), "a.csv")},
        headers={"X-CSRFToken": browser.csrf_token()},
    )  # fmt: skip
    assert with_header.status_code == 303
    assert len(stored(settings)) == 1


def test_the_list_is_searched_and_filtered(browser: Browser) -> None:
    for data, name in ((CSV, "cities.csv"), (NOTES, "notes.md"), (b"PK\x03\x04 x", "all.zip")):
        upload(browser, data, name)

    def names(query: str) -> list[str]:
        return re.findall(r'class="clip" href="[^"]+">([^<]+)<', browser.part(query).text)

    assert names("/data") == ["all.zip", "notes.md", "cities.csv"]
    assert names("/data?kind=document") == ["notes.md"]
    assert names("/data?kind=table&q=CIT") == ["cities.csv"]
    assert names("/data?q=%25") == []
    assert names("/data?kind=nonsense&page=0") == names("/data")
    assert "Nothing fits" in browser.open("/data?q=zzz").text


def test_pages_of_the_list(browser: Browser) -> None:
    for number in range(21):
        upload(browser, csv_of(1), f"file {number}.csv")

    first, second = browser.open("/data").text, browser.open("/data?page=2").text

    assert "file 20.csv" in first
    assert "file 0.csv" not in first
    assert "file 0.csv" in second
    assert "21–21 of 21 files" in visible(second)


def test_a_page_is_live_while_the_file_is_read(
    browser: Browser, set_row: Callable[..., None]
) -> None:
    path = page_of(browser)
    assert "weft:tick" in browser.part(path).text

    set_row(status="ready", passage_count=12)
    part = browser.part(path).text
    assert "weft:tick" not in part
    assert "Ready" in visible(part)
    assert "Passages 12" in visible(part)
    assert "<html" not in part
    research = visible(browser.open("/research").text)
    assert "Your data is searched too: 1 dataset ." in research or (
        "Your data is searched too: 1 dataset." in research
    )


def test_what_could_not_be_read_says_why_and_can_be_fetched(
    browser: Browser, set_row: Callable[..., None]
) -> None:
    path = page_of(browser)
    set_row(status="failed", status_message="The file breaks off in row 7.")

    page = browser.open(path).text
    assert "Not searchable" in visible(page)
    assert "The file breaks off in row 7." in page
    assert browser.open(f"{path}/file").data == CSV


def test_a_documents_beginning_is_shown_as_text(browser: Browser) -> None:
    page = browser.open(page_of(browser, NOTES, "notes.md")).text
    assert "The tower is 330 metres tall." in page


def test_the_beginning_of_a_page_is_what_its_reader_found(
    browser: Browser, settings: Settings, set_row: Callable[..., None], tmp_path: Path
) -> None:
    path = page_of(browser, b"<!doctype html><script>alert(1)</script><p>Hi</p>", "a.html")
    assert "It is being read" in browser.open(path).text

    writer = IndexWriter(tmp_path / "index.db", most_passages=10)
    writer.add_summary("about the file")
    writer.add("page 1", "Hi <script>alert(2)</script>")
    writer.add("page 1", "and more")
    writer.close()
    index = Storage("", settings.data_dir).put_bytes(
        "indexes", (tmp_path / "index.db").read_bytes(), suffix=".db"
    )
    set_row(status="ready", index_file=index.name)

    page = browser.open(path).text
    assert "Hi &lt;script&gt;alert(2)&lt;/script&gt;\n\nand more" in page
    assert "about the file" not in page
    assert inline_code(page) == []

    (settings.data_dir / "files" / index.name).write_bytes(b"no index")
    assert "There is nothing to show" in browser.open(path).text


def test_a_long_documents_beginning_is_a_beginning(browser: Browser) -> None:
    page = browser.open(page_of(browser, "Füße. ".encode() * 5000, "long.txt")).text
    assert page.count("Füße") < 1000
    assert "�" not in page


def test_an_archive_says_what_to_do_with_it(browser: Browser) -> None:
    page = browser.open(page_of(browser, b"PK\x03\x04 x", "a.zip")).text
    assert "download it to look inside" in page


def test_a_dataset_is_renamed_and_described(browser: Browser) -> None:
    path = page_of(browser)
    other = page_of(browser, NOTES, "notes.md")

    assert browser.send(path, name="Cities", description="Of Germany").location == path
    page = browser.open(path).text
    assert "<h1>Cities</h1>" in page
    assert "Of Germany" in page
    assert "File cities.csv" in visible(page)

    for name, status, message in (
        ("notes.md", 409, "already"), ("", 400, "Give it a name"),
        ("x" * 256, 400, "at most 255"),
    ):  # fmt: skip
        refused = browser.send(path, name=name, description="typed")
        assert refused.status_code == status
        assert message in visible(refused.text)
        assert "typed" in refused.text
    assert browser.open(other).status_code == 200


def test_research_is_told_to_leave_it_out(
    browser: Browser, set_row: Callable[..., None]
) -> None:
    path = page_of(browser)
    set_row(status="ready")

    assert browser.send(f"{path}/research").location == path
    assert "left out" in visible(browser.open("/data").text)
    assert "1 dataset" not in visible(browser.open("/research").text)

    headers = {"HX-Request": "true", "X-CSRFToken": browser.csrf_token()}
    answer = browser.client.post(f"{path}/research", data={"used": "1"}, headers=headers)
    assert (answer.status_code, answer.data) == (204, b"")
    assert "left out" not in visible(browser.open("/data").text)


def test_it_is_deleted_after_a_question(browser: Browser, settings: Settings) -> None:
    path = page_of(browser)
    question = browser.open(f"{path}/delete").text
    assert "Delete “cities.csv”?" in question

    assert browser.send(f"{path}/delete").location == "/data"
    assert browser.open(path).status_code == 404
    assert "No data yet" in browser.open("/data").text
    assert stored(settings) == []


def test_to_others_it_is_not_there(
    browser: Browser, signed_in: Callable[[Person], Browser], outsider: Person, admin: Person
) -> None:
    path = page_of(browser)
    for person in (outsider, admin):
        stranger = signed_in(person)
        for suffix in ("", "/file", "/delete"):
            assert stranger.open(path + suffix).status_code == 404
        for suffix in ("", "/delete", "/research"):
            assert stranger.send(path + suffix, name="x").status_code == 404
        assert "cities.csv" not in stranger.open("/data").text
    assert browser.open(path).status_code == 200


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_and_cells_are_text(browser: Browser, text: str) -> None:
    cells = text.replace('"', '""')
    path = page_of(browser, f'"{cells}",b\n"{cells}",2\n'.encode(), "a.csv")
    browser.send(path, name=text, description=text)

    for shown in (path, "/data", f"/data?q={text[:20]}", f"{path}/delete"):
        page = browser.open(shown).text
        assert text not in page
        assert inline_code(page) == []
