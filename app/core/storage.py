"""Files: a local folder by default, `s3://bucket/prefix` by setting.

The hub names every file. Writes are streamed, hashed and capped; a file that was not
finished is never seen.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import gevent
from gevent.monkey import is_module_patched

from app.core.domain.errors import NotFound, TooLarge, Unavailable

BLOCK_BYTES = 1024 * 1024
_PART_BYTES = 8 * 1024 * 1024  # of an upload to S3; each is held in memory once
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}/[0-9a-f]{32}(\.[a-z0-9]{1,10})?")
_PART = ".part"
_GONE = "This file is not there any more."
_BUCKET = re.compile(r"s3://(?P<bucket>[^/]+)(?:/(?P<prefix>.*))?")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as it was written. `sha256` in hex."""

    name: str
    size_bytes: int
    sha256: str


class Storage:
    """One place for files. Names come from `put`; all others are NotFound."""

    def __init__(self, url: str, data_dir: Path) -> None:
        """`url` empty: the folder `files` in `data_dir`. Raises Unavailable without a driver."""
        self._place: _Place = _Bucket(url) if url else _Folder(data_dir.resolve() / "files")

    def put(
        self, kind: str, blocks: Iterable[bytes], *, max_bytes: int, suffix: str = ""
    ) -> StoredFile:
        """Write a new file of this kind (`avatars`, `datasets`, …) and give it a name.

        Raises TooLarge after `max_bytes`; whatever is raised, nothing is left behind.
        """
        return self.put_as(new_name(kind, suffix), blocks, max_bytes=max_bytes)

    def put_as(self, name: str, blocks: Iterable[bytes], *, max_bytes: int) -> StoredFile:
        """Write a new file under a name that `new_name` made; the rest as `put`."""
        digest = hashlib.sha256()
        size = 0
        with self._place.create(_checked(name)) as file:
            for block in blocks:
                size += len(block)
                if size > max_bytes:
                    raise TooLarge(f"The file is larger than {max_bytes} bytes.")
                digest.update(block)
                file.write(block)
                _let_others_run()
        return StoredFile(name, size, digest.hexdigest())

    def put_bytes(self, kind: str, data: bytes, *, suffix: str = "") -> StoredFile:
        """Write a small file that is in memory already."""
        return self.put(kind, (data,), max_bytes=len(data), suffix=suffix)

    def open(self, name: str) -> IO[bytes]:
        """The file, readable and seekable. Raises NotFound."""
        return self._place.open(_checked(name))

    def blocks(self, name: str) -> Iterator[bytes]:
        """The file block by block. Raises NotFound."""
        with self.open(name) as file:
            while block := file.read(BLOCK_BYTES):
                yield block
                _let_others_run()

    def size(self, name: str) -> int:
        """Bytes in the file. Raises NotFound."""
        found = self._place.size(_checked(name))
        if found is None:
            raise NotFound(_GONE)
        return found

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        return self._place.size(_checked(name)) is not None

    def delete(self, name: str) -> None:
        """Remove the file; one that is gone already is fine."""
        self._place.delete(_checked(name))

    def local_path(self, name: str) -> Path | None:
        """Where the file lies on this machine; None when it is stored elsewhere."""
        return self._place.local_path(_checked(name))

    def free_bytes(self) -> int | None:
        """Room that is left; None where nobody counts it."""
        return self._place.free_bytes()

    def delete_unfinished(self, *, older_than_seconds: float) -> int:
        """Remove what writers left that were killed so long ago; how many there were."""
        return self._place.delete_unfinished(older_than_seconds)


class _Place(Protocol):
    """Where files lie. All names are checked before they come here."""

    def create(self, name: str) -> AbstractContextManager[IO[bytes]]: ...

    def open(self, name: str) -> IO[bytes]: ...

    def size(self, name: str) -> int | None: ...

    def delete(self, name: str) -> None: ...

    def local_path(self, name: str) -> Path | None: ...

    def free_bytes(self) -> int | None: ...

    def delete_unfinished(self, older_than_seconds: float) -> int: ...


class _Folder:
    """A folder of this machine. A file gets its name when it is complete."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def create(self, name: str) -> Generator[IO[bytes], None, None]:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + _PART)
        try:
            with part.open("wb") as file:
                yield file
            part.rename(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def open(self, name: str) -> IO[bytes]:
        try:
            return (self._root / name).open("rb")
        except FileNotFoundError:
            raise NotFound(_GONE) from None

    def size(self, name: str) -> int | None:
        try:
            return (self._root / name).stat().st_size
        except FileNotFoundError:
            return None

    def delete(self, name: str) -> None:
        path = self._root / name
        path.unlink(missing_ok=True)
        # A writer that was killed left it; one that still writes fails at its end.
        path.with_name(path.name + ".part").unlink(missing_ok=True)

    def local_path(self, name: str) -> Path | None:
        return self._root / name

    def free_bytes(self) -> int | None:
        self._root.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self._root).free

    def delete_unfinished(self, older_than_seconds: float) -> int:
        limit = time.time() - older_than_seconds
        found = [path for path in self._root.glob(f"*/*{_PART}") if _changed_at(path) < limit]
        for path in found:
            path.unlink(missing_ok=True)
        return len(found)


class _Bucket:
    """A bucket of an S3, which shows an object only when it is complete.

    Through boto3 and not an asyncio client: it works on sockets that gevent has patched.
    """

    def __init__(self, url: str) -> None:
        found = _BUCKET.fullmatch(url)
        if found is None:
            raise Unavailable("STORAGE_URL must be s3://bucket or s3://bucket/prefix.")
        try:
            import boto3
            import smart_open.s3
            from botocore.exceptions import ClientError
        except ImportError as error:
            raise Unavailable(
                f"STORAGE_URL needs a package that is not here: {error}"
            ) from None
        self._bucket = found["bucket"]
        self._prefix = f"{(found['prefix'] or '').strip('/')}/".lstrip("/")
        self._client = boto3.client("s3")
        self._stream = smart_open.s3.open
        self._error = ClientError

    @contextmanager
    def create(self, name: str) -> Generator[IO[bytes], None, None]:
        file: Any = self._open(name, "wb")
        try:
            yield file
        except BaseException:
            file.terminate()
            raise
        file.close()

    def open(self, name: str) -> IO[bytes]:
        if self.size(name) is None:
            raise NotFound(_GONE)
        opened: IO[bytes] = self._open(name, "rb")
        return opened

    def size(self, name: str) -> int | None:
        try:
            head = self._client.head_object(Bucket=self._bucket, Key=self._prefix + name)
        except self._error as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise
        return int(head["ContentLength"])

    def delete(self, name: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)

    def local_path(self, name: str) -> Path | None:
        return None

    def free_bytes(self) -> int | None:
        return None

    def delete_unfinished(self, older_than_seconds: float) -> int:
        """A bucket shows no unfinished objects; its own lifecycle rules end their parts."""
        return 0

    def _open(self, name: str, mode: str) -> Any:
        return self._stream(
            self._bucket, self._prefix + name, mode,
            client=self._client, min_part_size=_PART_BYTES, defer_seek=True,
        )  # fmt: skip


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # it was finished meanwhile
        return time.time()


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise NotFound("There is no such file.")
    return name


def new_name(kind: str, suffix: str = "") -> str:
    """A name for a file that is not there yet."""
    return f"{kind}/{secrets.token_hex(16)}{suffix}"


def blocks_of(stream: IO[bytes]) -> Iterator[bytes]:
    """An open file block by block."""
    while block := stream.read(BLOCK_BYTES):
        yield block


def _let_others_run() -> None:
    """Hashing and disks do not yield by themselves."""
    if is_module_patched("threading"):
        gevent.sleep(0)
