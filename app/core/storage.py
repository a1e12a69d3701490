"""Files: a local folder by default, `s3://bucket/prefix` by setting.

The hub names every file. Writes are streamed, hashed and capped; a file that was not
finished is never seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import fsspec
import fsspec.asyn
import gevent
from fsspec.implementations.local import LocalFileSystem
from gevent.monkey import get_original, is_module_patched

from app.core.domain.errors import NotFound, TooLarge, Unavailable

BLOCK_BYTES = 1024 * 1024
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}/[0-9a-f]{32}(\.[a-z0-9]{1,10})?")


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
        if url and is_module_patched("threading"):
            _give_fsspec_a_real_thread()
        target = url or f"file://{data_dir.resolve() / 'files'}"
        try:
            self._fs, self._root = fsspec.core.url_to_fs(target)
        except ImportError as error:
            raise Unavailable(
                f"STORAGE_URL needs a package that is not here: {error}"
            ) from None

    @property
    def is_local(self) -> bool:
        """Whether files lie in a folder of this machine."""
        return isinstance(self._fs, LocalFileSystem)

    def put(
        self, kind: str, blocks: Iterable[bytes], *, max_bytes: int, suffix: str = ""
    ) -> StoredFile:
        """Write a new file of this kind (`avatars`, `datasets`, …) and give it a name.

        Raises TooLarge after `max_bytes`; whatever is raised, nothing is left behind.
        """
        name = f"{kind}/{secrets.token_hex(16)}{suffix}"
        path = self._path(name)
        self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        # A local file gets its name at the end; S3 shows an object only when it is complete.
        part = f"{path}.part" if self.is_local else path
        digest = hashlib.sha256()
        size = 0
        file: Any = self._fs.open(part, "wb")
        try:
            for block in blocks:
                size += len(block)
                if size > max_bytes:
                    raise TooLarge(f"The file is larger than {max_bytes} bytes.")
                digest.update(block)
                file.write(block)
                _let_others_run()
            file.close()
        except BaseException:
            _discard(self._fs, file, part, is_local=self.is_local)
            raise
        if self.is_local:
            self._fs.mv(part, path)
        return StoredFile(name, size, digest.hexdigest())

    def put_bytes(self, kind: str, data: bytes, *, suffix: str = "") -> StoredFile:
        """Write a small file that is in memory already."""
        return self.put(kind, (data,), max_bytes=len(data), suffix=suffix)

    def open(self, name: str) -> IO[bytes]:
        """The file, readable and seekable. Raises NotFound."""
        try:
            opened: IO[bytes] = self._fs.open(self._path(name), "rb")
        except FileNotFoundError:
            raise NotFound("This file is not there any more.") from None
        return opened

    def blocks(self, name: str) -> Iterator[bytes]:
        """The file block by block. Raises NotFound."""
        with self.open(name) as file:
            while block := file.read(BLOCK_BYTES):
                yield block
                _let_others_run()

    def size(self, name: str) -> int:
        """Bytes in the file. Raises NotFound."""
        try:
            return int(self._fs.size(self._path(name)))
        except FileNotFoundError:
            raise NotFound("This file is not there any more.") from None

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        return bool(self._fs.exists(self._path(name)))

    def delete(self, name: str) -> None:
        """Remove the file; one that is gone already is fine."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def local_path(self, name: str) -> Path | None:
        """Where the file lies on this machine; None when it is stored elsewhere."""
        return Path(self._path(name)) if self.is_local else None

    def _path(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise NotFound("There is no such file.")
        return f"{self._root}/{name}"


def blocks_of(stream: IO[bytes]) -> Iterator[bytes]:
    """An open file block by block."""
    while block := stream.read(BLOCK_BYTES):
        yield block


def _discard(fs: Any, file: Any, part: str, *, is_local: bool) -> None:
    if is_local:
        file.close()
        with contextlib.suppress(FileNotFoundError):
            fs.rm_file(part)
        return
    file.discard()  # ends the multipart upload: nothing becomes visible
    file.closed = True


_loop_of_process: dict[int, asyncio.AbstractEventLoop] = {}


def _give_fsspec_a_real_thread() -> None:
    """Run fsspec's asyncio loop in a thread that gevent has not replaced, once a process.

    As a greenlet, that loop would count as running in every other greenlet too, and fsspec
    refuses to be called from within its own loop.
    """
    if os.getpid() in _loop_of_process:
        return
    is_up = get_original("_thread", "allocate_lock")()
    is_up.acquire()

    def run() -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        _loop_of_process[os.getpid()] = loop
        fsspec.asyn.loop[0] = loop
        fsspec.asyn.iothread[0] = None
        loop.call_soon(is_up.release)
        loop.run_forever()

    get_original("_thread", "start_new_thread")(run, ())
    is_up.acquire()


def _let_others_run() -> None:
    """Hashing and disks do not yield by themselves."""
    if is_module_patched("threading"):
        gevent.sleep(0)
