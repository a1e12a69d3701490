"""Data in a real browser: dropped or chosen, read by a worker, looked at, deleted."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session, sessionmaker

from app.core.models import Dataset
from tests.browser.conftest import Hub, let_time_pass, look
from tests.fixtures.waiting import eventually
from tests.uploading import CSV, NOTES, csv_of

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser-things")]

DROP = """([form, name, text]) => {
    const carried = new DataTransfer();
    carried.items.add(new File([text], name));
    for (const kind of ["dragenter", "dragover", "drop"]) {
        form.dispatchEvent(new DragEvent(kind, {dataTransfer: carried, bubbles: true, cancelable: true}));
    }
}"""


def states(sessions: sessionmaker[Session]) -> list[str]:
    with sessions() as session:
        return list(session.scalars(sa.select(Dataset.status)))


def test_files_are_uploaded_read_shown_and_deleted(
    page: Page, hub: Hub, sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    (tmp_path / "cities.csv").write_bytes(CSV)
    (tmp_path / "rows.csv").write_bytes(csv_of(3000))
    (tmp_path / "empty.csv").touch()
    page.goto("/data")
    expect(page.get_by_text("No data yet")).to_be_visible()

    names = ("cities.csv", "empty.csv", "rows.csv")
    page.get_by_label("Drop files here").set_input_files([tmp_path / name for name in names])
    form = page.locator("form[data-upload]").element_handle()
    page.evaluate(DROP, [form, "notes.md", NOTES.decode()])

    uploads = page.locator(".upload")
    expect(uploads.locator(".upload-note")).to_have_text(
        ["uploaded", "empty, or a folder", "uploaded", "uploaded"]
    )
    rows = page.locator("#data tbody tr")
    expect(rows).to_have_count(3)
    eventually(lambda: states(sessions) == ["ready"] * 3)
    let_time_pass(page)
    expect(page.locator("#data .badge-ok")).to_have_count(3)
    assert look(page, "/data") == []

    page.locator("#data").get_by_role("link", name="cities.csv").click()
    expect(page.get_by_role("heading", name="Ready")).to_be_visible()
    expect(page.locator(".preview tbody td").first).to_have_text("München")
    with page.expect_response("**/research"):
        page.get_by_label("Research may read it").uncheck()
    page.get_by_role("textbox", name="Description").fill("Of Germany")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("textbox", name="Description")).to_have_value("Of Germany")
    expect(page.get_by_label("Research may read it")).not_to_be_checked()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "cities.csv"
    assert Path(download.value.path()).read_bytes() == CSV
    assert look(page, "/data/cities") == []

    page.get_by_role("link", name="Delete").click()
    page.get_by_role("button", name="Delete it").click()
    page.wait_for_url("**/data")
    expect(page.locator("#data tbody tr")).to_have_count(2)

    page.goto("/research")
    expect(page.get_by_role("link", name="2 datasets")).to_be_visible()
