"""Files: named by the hub, hashed while they are written, never seen half."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

from app.core.domain.errors import NotFound, TooLarge, Unavailable
from app.core.storage import Storage
from tests.fixtures.s3 import BUCKET

MB = 1024 * 1024
Names = Callable[[str], list[str]]

_UNDER_GEVENT = """
from gevent import monkey; monkey.patch_all()
import sys, gevent
from pathlib import Path
from app.core.storage import Storage
ticks = []
def tick():
    while True:
        ticks.append(1); gevent.sleep(0)
ticker = gevent.spawn(tick)
files = Storage(sys.argv[1], Path(sys.argv[2]))
stored = files.put("things", (b"x" * 1048576 for _ in range(7)), max_bytes=10**8)
assert files.size(stored.name) == stored.size_bytes == 7 * 1048576
assert sum(len(block) for block in files.blocks(stored.name)) == 7 * 1048576
files.delete(stored.name)
assert not files.exists(stored.name)
assert len(ticks) >= 7, len(ticks)
print("ok")
"""


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    url = request.getfixturevalue("s3_url") if request.param == "s3" else ""
    return Storage(url, tmp_path)


def test_what_is_written_is_read_and_hashed(storage: Storage) -> None:
    content = b"warp and weft" * 1000
    stored = storage.put(
        "things", (content[i : i + 999] for i in range(0, len(content), 999)), max_bytes=MB
    )
    assert stored.size_bytes == len(content) == storage.size(stored.name)
    assert stored.sha256 == hashlib.sha256(content).hexdigest()
    assert b"".join(storage.blocks(stored.name)) == content


def test_a_file_can_be_read_from_the_middle(storage: Storage) -> None:
    name = storage.put_bytes("things", bytes(range(256)) * 100).name
    with storage.open(name) as file:
        file.seek(1000)
        assert file.read(4) == bytes([232, 233, 234, 235])


def test_names_are_the_hubs_own(storage: Storage) -> None:
    names = {storage.put_bytes("things", b"x", suffix=".csv").name for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("things/") and name.endswith(".csv") for name in names)


@pytest.fixture
def names(storage: Storage, tmp_path: Path) -> Iterator[Names]:
    """What lies in a folder of the storage, found without it."""
    if storage.local_path("things/" + "0" * 32) is not None:
        yield lambda folder: [p.name for p in (tmp_path / "files" / folder).iterdir()]
        return
    client = boto3.client("s3")

    def listed(folder: str) -> list[str]:
        assert not client.list_multipart_uploads(Bucket=BUCKET).get("Uploads")
        found = client.list_objects_v2(Bucket=BUCKET, Prefix=f"hub/{folder}/")
        return [entry["Key"] for entry in found.get("Contents", [])]

    yield listed
    client.close()


def test_too_large_a_file_leaves_nothing_behind(storage: Storage, names: Names) -> None:
    def blocks() -> Iterator[bytes]:
        for _ in range(12):
            yield b"x" * MB

    with pytest.raises(TooLarge):
        storage.put("large", blocks(), max_bytes=8 * MB)
    assert names("large") == []


def test_a_writer_that_breaks_off_leaves_nothing_behind(storage: Storage, names: Names) -> None:
    def blocks() -> Iterator[bytes]:
        yield b"x" * 6 * MB
        raise ConnectionError("the uploader left")

    with pytest.raises(ConnectionError):
        storage.put("broken", blocks(), max_bytes=100 * MB)
    assert names("broken") == []


def test_an_empty_file_is_a_file(storage: Storage) -> None:
    stored = storage.put_bytes("things", b"")
    assert storage.size(stored.name) == stored.size_bytes == 0
    assert b"".join(storage.blocks(stored.name)) == b""


@pytest.mark.parametrize("url", ["s3://", "gs://bucket", "/srv/files"])
def test_another_kind_of_place_is_refused_at_the_start(tmp_path: Path, url: str) -> None:
    with pytest.raises(Unavailable):
        Storage(url, tmp_path)


def test_deleting_twice_is_fine(storage: Storage) -> None:
    name = storage.put_bytes("things", b"x").name
    storage.delete(name)
    storage.delete(name)
    assert not storage.exists(name)
    with pytest.raises(NotFound):
        storage.size(name)
    with pytest.raises(NotFound):
        storage.open(name).read()


@pytest.mark.parametrize(
    "name",
    [
        "../secret_key", "things/../../secret_key", "/etc/passwd", "things/", "",
        "things/" + "0" * 31, "things/" + "0" * 32 + "/x", "THINGS/" + "0" * 32,
        "things/" + "0" * 32 + ".a.b", "things/" + "0" * 32 + "\n",
    ],
)  # fmt: skip
def test_a_name_that_is_not_ours_leads_nowhere(storage: Storage, name: str) -> None:
    for look in (storage.open, storage.size, storage.exists, storage.delete):
        with pytest.raises(NotFound):
            look(name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_works_under_gevent_and_lets_others_run(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    url = request.getfixturevalue("s3_url") if kind == "s3" else ""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _UNDER_GEVENT, url, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == "ok\n", done.stderr


def test_only_what_writers_left_long_ago_is_swept(tmp_path: Path) -> None:
    storage = Storage("", tmp_path)
    kept = storage.put_bytes("things", b"whole")
    old, fresh = (tmp_path / "files" / "things" / f"{name}.part" for name in ("a", "b"))
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    os.utime(tmp_path / "files" / kept.name, (0, 0))

    assert storage.delete_unfinished(older_than_seconds=3600) == 1
    assert (old.exists(), fresh.exists(), storage.exists(kept.name)) == (False, True, True)


def test_the_room_that_is_left_is_known_where_it_ends(storage: Storage) -> None:
    free = storage.free_bytes()
    assert free is None or free > 0
