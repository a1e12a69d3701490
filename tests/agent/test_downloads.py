"""Model downloads from a real HTTP server that cuts, changes, lies and knows no ranges."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent import downloads, fetching
from agent.downloads import DownloadManager
from agent.fetching import Fetch, FetchFailed, Stopped, WrongContent
from agent.hub import HubClient
from agent.state import Identity
from tests.agent.conditions import eventually
from tests.fakes.file_server import CHUNK, CONTENT, SHA256, FileServer
from tests.fakes.http_server import FakeServer
from tests.fakes.hub import FakeHub


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "CHUNK_BYTES", CHUNK)
    monkeypatch.setattr(fetching, "PIECE_BYTES", 4096)


@pytest.fixture
def files() -> FileServer:
    return FileServer()


@pytest.fixture
def server(files: FileServer) -> Iterator[FakeServer]:
    with FakeServer(files.handle) as server:
        yield server


def make_fetch(server: FakeServer, target: Path, **changes: Any) -> Fetch:
    options: dict[str, Any] = {
        "sha256": SHA256,
        "expected_bytes": len(CONTENT),
        "stopping": threading.Event(),
    }
    return Fetch(server.url + "/model.gguf", target, **{**options, **changes})


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_comes_in_parallel_ranges(server: FakeServer, tmp_path: Path) -> None:
    target = tmp_path / "m.gguf"
    make_fetch(server, target).run()
    assert target.read_bytes() == CONTENT
    assert left_in(tmp_path) == {"m.gguf"}
    assert len(server.requests) == 11
    assert len({request.connection for request in server.requests}) > 1


def test_a_cut_connection_goes_on_where_it_was(
    server: FakeServer, files: FileServer, tmp_path: Path
) -> None:
    files.cut_after = {3: 20_000}
    fetch = make_fetch(server, tmp_path / "m.gguf")
    with pytest.raises(FetchFailed) as caught:
        fetch.run()
    assert not caught.value.is_final
    assert not (tmp_path / "m.gguf").exists()
    # Another process would go on too: what came is written down.
    make_fetch(server, tmp_path / "m.gguf").run()
    assert (tmp_path / "m.gguf").read_bytes() == CONTENT
    assert files.sent_bytes < len(CONTENT) * 1.5


def test_a_file_that_changed_meanwhile_is_begun_again(
    server: FakeServer, files: FileServer, tmp_path: Path
) -> None:
    files.content = b"old" * 100_000
    files.cut_after = {2: 10}
    target = tmp_path / "m.gguf"
    with pytest.raises(FetchFailed):
        make_fetch(server, target, expected_bytes=None).run()
    files.content, files.etag, files.cut_after = CONTENT, '"two"', {}
    make_fetch(server, target, expected_bytes=None).run()
    assert target.read_bytes() == CONTENT


def test_a_server_without_ranges_sends_all_at_once(
    server: FakeServer, files: FileServer, tmp_path: Path
) -> None:
    files.has_ranges = False
    files.cut_after = {1: 30_000}
    fetch = make_fetch(server, tmp_path / "m.gguf")
    with pytest.raises(FetchFailed, match=r"early|broke off"):
        fetch.run()
    fetch.run()
    assert (tmp_path / "m.gguf").read_bytes() == CONTENT


def test_a_file_with_the_wrong_hash_never_gets_its_name(
    server: FakeServer, files: FileServer, tmp_path: Path
) -> None:
    files.content = bytes(len(CONTENT))
    with pytest.raises(WrongContent, match="SHA-256"):
        make_fetch(server, tmp_path / "m.gguf").run()
    assert left_in(tmp_path) == set()


def test_a_file_of_another_size_is_not_even_fetched(
    server: FakeServer, files: FileServer, tmp_path: Path
) -> None:
    with pytest.raises(FetchFailed, match="promised") as caught:
        make_fetch(server, tmp_path / "m.gguf", expected_bytes=12).run()
    assert caught.value.is_final
    assert len(server.requests) == 1


def test_a_full_disk_is_seen_before_the_download(server: FakeServer, tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match="disk space") as caught:
        make_fetch(server, tmp_path / "m.gguf", free_bytes=lambda _folder: 1000).run()
    assert caught.value.is_final


def test_a_missing_file_is_final_and_a_busy_server_is_not(
    server: FakeServer, files: FileServer, tmp_path: Path
) -> None:
    for status, is_final in ((404, True), (503, False), (429, False)):
        files.status = status
        with pytest.raises(FetchFailed) as caught:
            make_fetch(server, tmp_path / "m.gguf").run()
        assert caught.value.is_final is is_final


def test_plain_http_needs_a_checksum(server: FakeServer, tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match="https"):
        make_fetch(server, tmp_path / "m.gguf", sha256=None).run()
    assert server.requests == []


def test_a_stop_keeps_what_came(server: FakeServer, files: FileServer, tmp_path: Path) -> None:
    files.pauses = threading.Event()
    stopping = threading.Event()
    fetch = make_fetch(server, tmp_path / "m.gguf", stopping=stopping)
    ended: list[type[BaseException]] = []

    def run() -> None:
        try:
            fetch.run()
        except Stopped as stopped:
            ended.append(type(stopped))

    thread = threading.Thread(target=run)
    thread.start()
    eventually(lambda: fetch.done_bytes >= CHUNK)
    stopping.set()
    files.pauses.set()
    thread.join(60)
    assert ended == [Stopped]
    again = make_fetch(server, tmp_path / "m.gguf")
    files.sent_bytes = 0
    again.run()
    assert (tmp_path / "m.gguf").read_bytes() == CONTENT
    assert files.sent_bytes < len(CONTENT)


# The manager, with a hub to report to


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.node_token = "token"
        yield hub


@dataclass
class Managed:
    """A manager and what it said."""

    manager: DownloadManager
    completions: list[int] = field(default_factory=list)


@pytest.fixture
def managed(hub: FakeHub, tmp_path: Path) -> Iterator[Managed]:
    managed = make_manager(hub, tmp_path)
    yield managed
    managed.manager.stop()


def make_manager(hub: FakeHub, folder: Path, *, report_every_seconds: float = 0.05) -> Managed:
    client = HubClient(
        Identity(hub=hub.url, client_id="0" * 32, node_token="token"),
        enrolment_token=None,
        enrolment=dict,
        on_identity=lambda _identity: None,
    )
    completions: list[int] = []
    manager = DownloadManager(
        client,
        folder,
        on_complete=lambda: completions.append(1),
        report_every_seconds=report_every_seconds,
        first_retry_seconds=0.01,
    )
    return Managed(manager, completions)


def make_entry(server: FakeServer, **changes: Any) -> dict[str, Any]:
    entry = {
        "id": 41,
        "model_name": "Tiny Model",
        "version": "1.0",
        "download_url": server.url + "/some/tiny.gguf?sig=1",
        "checksum": SHA256,
        "expected_size": len(CONTENT),
        "engine_type": 6,
    }
    return {**entry, **changes}


def wait_for_status(hub: FakeHub, status: str) -> dict[str, Any]:
    body = hub.wait_until(
        "/agent/v1/downloads",
        lambda body: any(one["status"] == status for one in body["downloads"]),
    )
    return next(one for one in body["downloads"] if one["status"] == status)


def test_a_wanted_model_is_fetched_told_and_found(
    managed: Managed, hub: FakeHub, server: FakeServer
) -> None:
    managed.manager.want([make_entry(server)])
    told = wait_for_status(hub, "Completed")
    assert told == {
        "id": 41, "model_name": "Tiny Model", "downloaded_bytes": len(CONTENT),
        "total_bytes": len(CONTENT), "percentage": 100.0, "speed_bps": 0,
        "status": "Completed", "error": None,
    }  # fmt: skip
    path = managed.manager.file_for("Tiny Model", "tiny.gguf")
    assert path is not None
    assert path.read_bytes() == CONTENT
    assert path.suffix == ".gguf"
    assert managed.completions == [1]


def test_the_end_of_a_short_download_is_always_told(
    hub: FakeHub, server: FakeServer, files: FileServer, tmp_path: Path
) -> None:
    """Reports and ends may meet at any moment; none may be lost."""
    files.content = b"GGUF"
    for number in range(20):
        managed = make_manager(hub, tmp_path, report_every_seconds=0.001)
        wanted = {"checksum": hashlib.sha256(b"GGUF").hexdigest(), "expected_size": 4}
        managed.manager.want([make_entry(server, id=number + 1, **wanted)])
        hub.wait_until(
            "/agent/v1/downloads",
            lambda body, number=number: any(
                (one["id"], one["status"]) == (number + 1, "Completed")
                for one in body["downloads"]
            ),
            seconds=10,
        )
        managed.manager.stop()


def test_every_report_names_all_downloads(
    managed: Managed, hub: FakeHub, server: FakeServer, files: FileServer
) -> None:
    """The hub keeps what the last report says, and nothing else."""
    missing = make_entry(server, id=1, model_name="missing", checksum="0" * 64)
    managed.manager.want([missing, make_entry(server, id=2)])
    wait_for_status(hub, "Completed")
    bodies = [call.body["downloads"] for call in hub.of("/agent/v1/downloads")]
    assert {tuple(one["id"] for one in body) for body in bodies} == {(1, 2)}
    managed.manager.want([])
    hub.wait_until("/agent/v1/downloads", lambda body: body == {"downloads": []})


def test_a_failure_is_told_again_before_the_hub_forgets_it(
    managed: Managed, hub: FakeHub, server: FakeServer, files: FileServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(downloads, "TELL_AGAIN_SECONDS", 0.05)
    files.status = 404
    managed.manager.want([make_entry(server)])
    wait_for_status(hub, "Failed")
    told = len(hub.of("/agent/v1/downloads"))
    hub.wait_for("/agent/v1/downloads", told + 2)


def test_a_flaky_server_is_tried_again(
    managed: Managed, hub: FakeHub, server: FakeServer, files: FileServer
) -> None:
    files.cut_after = {2: 100, 5: 100, 9: 100}
    managed.manager.want([make_entry(server)])
    wait_for_status(hub, "Completed")


def test_a_wrong_hash_is_failed_after_one_more_try(
    managed: Managed, hub: FakeHub, server: FakeServer, files: FileServer
) -> None:
    files.content = bytes(len(CONTENT))
    managed.manager.want([make_entry(server)])
    told = wait_for_status(hub, "Failed")
    assert "SHA-256" in told["error"]
    assert managed.manager.file_for("Tiny Model", None) is None
    assert files.sent_bytes == 2 * len(CONTENT)


def test_a_second_start_knows_the_finished_file(
    managed: Managed, hub: FakeHub, server: FakeServer, files: FileServer, tmp_path: Path
) -> None:
    managed.manager.want([make_entry(server)])
    wait_for_status(hub, "Completed")
    managed.manager.stop()
    answered = files.answers
    again = make_manager(hub, tmp_path)
    again.manager.want([make_entry(server)])
    assert again.manager.file_for("Tiny Model", None) is not None
    again.manager.stop()
    assert files.answers == answered


def test_an_unwanted_download_stops_and_leaves_nothing(
    managed: Managed, server: FakeServer, files: FileServer, tmp_path: Path
) -> None:
    files.pauses = threading.Event()
    managed.manager.want([make_entry(server)])
    eventually(lambda: any(name.endswith(".part") for name in left_in(tmp_path)))
    managed.manager.want([])
    files.pauses.set()
    eventually(lambda: left_in(tmp_path) == set(), what="cleaning up")


def test_nothing_of_an_url_or_name_reaches_other_folders(
    managed: Managed, hub: FakeHub, server: FakeServer, tmp_path: Path
) -> None:
    entry = make_entry(
        server,
        id="../../x",
        model_name="../../../etc/passwd",
        download_url=server.url + "/..%2f..%2fevil.sh",
    )
    managed.manager.want([entry])
    wait_for_status(hub, "Completed")
    path = managed.manager.file_for("../../../etc/passwd", None)
    assert path is not None
    assert path.resolve().parent == tmp_path.resolve()
    assert path.suffix != ".sh"
    notes = json.loads(path.with_name(path.name + ".json").read_text())
    assert notes["size"] == len(CONTENT)
