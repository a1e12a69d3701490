"""The APK store: real APKs, read and verified, kept, served in ranges, signed by one key.

The files in tests/data/apks were built with Debian's aapt, zipalign and apksigner from a
manifest alone: `weft-1` (signed v1+v2+v3) and `weft-2` (v2) with one key, `weft-3-other-key`
(v3) with another, `weft-1-v1-only` as a plain signed JAR.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session, sessionmaker
from werkzeug.test import TestResponse

from app.config import Settings
from app.core.apk_file import ApkFacts, read_apk
from app.core.clock import utc_now
from app.core.domain.errors import Conflict, InvalidInput
from app.core.models import ApkVersion, AuditEntry
from app.core.services import apk_store
from app.core.storage import StoredFile
from tests.dashboard.conftest import HOSTILE, Browser, Rows
from tests.dashboard.test_every_page import inline_code
from tests.dashboard.test_rooms import visible
from tests.fixtures.accounts import Person

APKS = Path(__file__).parents[1] / "data" / "apks"
# As `apksigner verify --print-certs` says it.
SIGNER = "dc3f65f452fac1a61f18a0bef4ff2f5e5d3bac55a013e4a79c4b8665206b5c56"
SignedIn = Callable[[Person], Browser]


@pytest.fixture
def manager(signed_in: SignedIn, admin: Person) -> Browser:
    """The admin's browser."""
    return signed_in(admin)


def send(browser: Browser, data: bytes, name: str = "app.apk") -> TestResponse:
    return browser.client.post(
        "/apps", data={"csrf_token": browser.csrf_token(), "apk": (io.BytesIO(data), name)}
    )


def send_large(browser: Browser, size: int) -> TestResponse:
    """A form of which the file part alone has so many bytes."""
    parts = (("csrf_token", browser.csrf_token().encode()), ("apk", bytes(size)))
    body = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
        % (name.encode(), b'; filename="a.apk"' if name == "apk" else b"", value)
        for name, value in parts
    )
    return browser.client.post(
        "/apps", data=body + b"--x--\r\n", content_type="multipart/form-data; boundary=x"
    )


def apk(name: str) -> bytes:
    return (APKS / f"{name}.apk").read_bytes()


def stored_files(settings: Settings) -> list[Path]:
    return [path for path in (settings.data_dir / "files").rglob("*") if path.is_file()]


# ---- Reading


@pytest.mark.parametrize(
    ("name", "code", "version"), [("weft-1", 1, "1.0"), ("weft-2", 2, '1.1 <b>"two')]
)
def test_an_apk_says_what_it_is_and_who_signed_it(name: str, code: int, version: str) -> None:
    facts = read_apk(APKS / f"{name}.apk")

    assert (facts.package_name, facts.version_code) == ("org.example.weft", code)
    assert (facts.version_name, facts.min_sdk) == (version, "26")
    assert facts.signer_sha256 == SIGNER


def changed(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new, 1)


def zip_of(entries: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return out.getvalue()


def with_a_byte_turned(data: bytes) -> bytes:
    at = data.index(b"Weft test key")  # in the certificate
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def hostile_files() -> Iterator[tuple[str, bytes]]:
    good = apk("weft-2")
    entry = zipfile.ZipFile(io.BytesIO(good)).getinfo("AndroidManifest.xml")
    body = entry.header_offset + 60
    yield "nothing", b""
    yield "text", b"hello" * 100
    yield "a zip without a manifest", zip_of({"a.txt": b"a"})
    yield "a manifest of noise", zip_of({"AndroidManifest.xml": bytes(range(256)) * 4})
    yield "a bomb", zip_of({"AndroidManifest.xml": b"\0" * 50_000_000})
    yield (
        "a header that promises chunks",
        zip_of(
            {
                "AndroidManifest.xml": b"\x03\x00\x08\x00\xff\xff\xff\x7f"
                + b"\x01\x00\x1c\x00" * 64
            }
        ),
    )
    yield "only the first half", good[: len(good) // 2]
    yield "something appended", good + b"more"
    yield "a changed entry", good[:body] + bytes([good[body] ^ 0xFF]) + good[body + 1 :]
    yield "a changed signing block", with_a_byte_turned(good)
    yield "a jar's signature alone", apk("weft-1-v1-only")


@pytest.mark.parametrize(
    "data", [pytest.param(data, id=name) for name, data in hostile_files()]
)
def test_what_is_no_whole_signed_apk_is_refused_with_a_sentence(
    tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "hostile.apk"
    path.write_bytes(data)

    with pytest.raises(InvalidInput) as refused:
        read_apk(path)

    assert refused.value.field == "apk"
    assert refused.value.message.endswith(".")
    assert str(tmp_path) not in refused.value.message


# ---- Publishing


def test_an_admin_publishes_and_everybody_fetches(
    manager: Browser, browser: Browser, visitor: Browser, sessions: sessionmaker[Session]
) -> None:
    data = apk("weft-1")
    answer = send(manager, data)
    assert answer.status_code == 303
    assert "org.example.weft 1.0 is published." in manager.open(answer.location).text

    page = browser.open("/apps").text
    fetched = visitor.open("/apks/org.example.weft/1.apk")

    assert "http://localhost/apks/org.example.weft/1.apk" in page
    assert "Version 1.0 for Android 8.0 and later, 8.27 KiB" in visible(page)
    assert '<svg viewBox="0 0 ' in page
    assert inline_code(page) == []
    assert fetched.data == data
    assert fetched.mimetype == "application/vnd.android.package-archive"
    assert "attachment" in fetched.headers["Content-Disposition"]
    assert fetched.headers["X-Content-Type-Options"] == "nosniff"
    with sessions() as session:
        row = session.scalars(sa.select(ApkVersion)).one()
        assert (row.sha256, row.signer_sha256) == (hashlib.sha256(data).hexdigest(), SIGNER)
        assert row.file_size_bytes == len(data)
        assert session.scalars(sa.select(AuditEntry.action)).all() == ["apk.publish"]


def test_a_broken_download_goes_on_where_it_stopped(manager: Browser, visitor: Browser) -> None:
    data = apk("weft-1")
    send(manager, data)
    path = "/apks/org.example.weft/1.apk"
    tag = visitor.open(path).headers["ETag"]

    rest = visitor.open(path, headers={"Range": "bytes=4000-", "If-Range": tag})
    beyond = visitor.open(path, headers={"Range": "bytes=99999-"})
    same = visitor.open(path, headers={"If-None-Match": tag})

    assert (rest.status_code, rest.data) == (206, data[4000:])
    assert rest.headers["Content-Range"] == f"bytes 4000-{len(data) - 1}/{len(data)}"
    assert beyond.status_code == 416
    assert same.status_code == 304


def test_the_same_keys_next_version_is_taken_and_shown_first(manager: Browser) -> None:
    send(manager, apk("weft-1"))
    send(manager, apk("weft-2"))

    page = manager.open("/apps").text

    assert "Version 1.1 &lt;b&gt;&#34;two for" in page
    assert page.index("code 2") < page.index("code 1")
    assert inline_code(page) == []


def test_another_keys_next_version_is_refused(
    manager: Browser, settings: Settings, visitor: Browser
) -> None:
    send(manager, apk("weft-1"))
    kept = stored_files(settings)

    answer = send(manager, apk("weft-3-other-key"))

    assert answer.status_code == 409
    assert "was signed with another certificate until now" in answer.text
    assert visitor.open("/apks/org.example.weft/3.apk").status_code == 404
    assert stored_files(settings) == kept


def test_a_version_code_stands_for_one_file(
    manager: Browser, rows: Rows, sessions: sessionmaker[Session]
) -> None:
    send(manager, apk("weft-1"))
    with sessions.begin() as session:
        session.scalars(sa.select(ApkVersion)).one().version_code = 2

    answer = send(manager, apk("weft-2"))

    assert answer.status_code == 409
    assert "Raise the version code." in answer.text


def test_publishing_the_same_file_again_changes_nothing(
    manager: Browser, sessions: sessionmaker[Session]
) -> None:
    assert send(manager, apk("weft-1")).status_code == 303
    assert send(manager, apk("weft-1")).status_code == 303

    with sessions() as session:
        assert len(session.scalars(sa.select(ApkVersion)).all()) == 1
    assert manager.open("/apks/org.example.weft/1.apk").data == apk("weft-1")


def test_the_same_file_is_kept_once(manager: Browser, settings: Settings) -> None:
    send(manager, apk("weft-1"))
    send(manager, apk("weft-1"))

    assert len(stored_files(settings)) == 1


@pytest.mark.parametrize(("first_code", "second_code"), [(1, 1), (1, 2)])
def test_of_two_first_uploads_at_once_one_wins(
    sessions: sessionmaker[Session], admin: Person, monkeypatch: pytest.MonkeyPatch,
    first_code: int, second_code: int,
) -> None:  # fmt: skip
    """Both have looked at what is there before either writes, unless one has to wait."""
    both_looked = threading.Barrier(2)
    look = apk_store._check_signer

    def look_and_wait(session: Session, facts: ApkFacts) -> None:
        look(session, facts)
        with contextlib.suppress(threading.BrokenBarrierError):
            both_looked.wait(0.5)

    monkeypatch.setattr(apk_store, "_check_signer", look_and_wait)

    def publish(code: int, signer: str) -> str:
        facts = ApkFacts("org.example.race", code, "1.0", "26", signer * 64)
        stored = StoredFile(f"apks/{signer * 32}.apk", 10, signer * 64)
        try:
            with sessions.begin() as session:
                apk_store.publish(
                    session, stored, facts, url="http://hub/x.apk", actor_id=admin.id,
                    now=utc_now(),
                )  # fmt: skip
        except Conflict as error:
            return error.message
        return "published"

    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(publish, (first_code, second_code), "ab"))

    assert said.count("published") == 1
    [refusal] = set(said) - {"published"}
    assert "another certificate" in refusal
    with sessions() as session:
        assert len(session.scalars(sa.select(ApkVersion)).all()) == 1


def test_a_version_elsewhere_is_shown_as_not_checked(manager: Browser, admin: Person) -> None:
    send(manager, apk("weft-1"))
    elsewhere = {
        "package_name": "org.example.weft", "version_name": "9.0", "version_code": 9,
        "download_url": "https://example.org/9.apk",
    }  # fmt: skip
    answer = manager.client.post("/api/apk/upsert", json=elsewhere, headers=admin.headers())
    assert answer.status_code == 200, answer.text

    assert "not checked: the file is elsewhere" in manager.open("/apps").text


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 200), ({"is_active": False}, 200), ({"version_name": "one"}, 200),
        ({"download_url": "https://example.org/other.apk"}, 409), ({"sha256": "0" * 64}, 409),
        ({"file_size_bytes": 1}, 409),
    ],
)  # fmt: skip
def test_an_uploaded_file_is_not_exchanged_from_outside(
    manager: Browser, admin: Person, sessions: sessionmaker[Session], changes: dict[str, Any],
    status: int,
) -> None:  # fmt: skip
    send(manager, apk("weft-1"))
    with sessions() as session:
        url = session.scalars(sa.select(ApkVersion.download_url)).one()
    same = {
        "package_name": "org.example.weft", "version_name": "1.0", "version_code": 1,
        "download_url": url,
    }  # fmt: skip

    answer = manager.client.post(
        "/api/apk/upsert", json={**same, **changes}, headers=admin.headers()
    )

    assert answer.status_code == status
    if changes.get("is_active", True):
        assert manager.open("/apks/org.example.weft/1.apk").data == apk("weft-1")


def test_a_refused_file_leaves_nothing_behind(manager: Browser, settings: Settings) -> None:
    answer = send(manager, b"not an apk")

    assert answer.status_code == 400
    assert "it is no zip archive" in answer.text
    assert stored_files(settings) == []
    assert manager.send("/apps").status_code == 400


def test_only_admins_publish(
    browser: Browser, settings: Settings, app: Flask, manager: Browser
) -> None:
    assert send(browser, apk("weft-1")).status_code == 404
    assert send_large(browser, 2 * 2**20).status_code == 413
    assert send_large(manager, 2 * 2**20).status_code == 400
    assert stored_files(settings) == []
    assert "Publish a version" not in browser.open("/apps").text
    send(manager, apk("weft-1"))
    assert browser.send("/apps/org.example.weft/1/active", active="0").status_code == 404


def test_a_withdrawn_version_is_gone_until_it_is_put_back(
    manager: Browser, browser: Browser, visitor: Browser
) -> None:
    send(manager, apk("weft-1"))

    manager.send("/apps/org.example.weft/1/active", active="0")
    assert visitor.open("/apks/org.example.weft/1.apk").status_code == 404
    assert "org.example.weft" not in browser.open("/apps").text
    assert "Withdrawn" in manager.open("/apps").text

    manager.send("/apps/org.example.weft/1/active", active="1")
    assert visitor.open("/apks/org.example.weft/1.apk").status_code == 200


@pytest.mark.parametrize(
    "path", ["/apks/no.such/1.apk", "/apks/a/x.apk", "/apks/a/²", "/apks/a/99999999999.apk",
             "/apks/..%2f..%2fsecret/1.apk"],
)  # fmt: skip
def test_there_are_no_other_files(visitor: Browser, path: str) -> None:
    assert visitor.open(path).status_code in {303, 404}


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_text_in_the_store(manager: Browser, rows: Rows, text: str) -> None:
    from app.core.clock import utc_now

    now = utc_now()
    rows.add(
        ApkVersion(
            package_name=text, version_name=text[:64], version_code=1, created_at=now,
            updated_at=now, download_url="https://example.org/x.apk", min_os_version=text[:32],
            released_at=now,
        )
    )  # fmt: skip

    page = manager.open(f"/apps?done={text}")

    assert text not in page.text
    assert inline_code(page.text) == []
