"""Search indexes as files of this machine, wherever they are stored."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from app.core.storage import Storage

INDEX_CACHE = "index-cache"  # in the data folder


class IndexShelf:
    """Copies of indexes that are stored elsewhere; those that lie here are used in place."""

    def __init__(self, storage: Storage, data_dir: Path) -> None:
        self._storage = storage
        self._folder = data_dir / INDEX_CACHE

    def path(self, name: str) -> Path:
        """Where an index can be opened. Raises NotFound."""
        local = self._storage.local_path(name)
        if local is not None:
            self._storage.size(name)
            return local
        copy = self._folder / name.rpartition("/")[2]
        if copy.exists():
            os.utime(copy)  # the oldest are deleted first
            return copy
        self._folder.mkdir(parents=True, exist_ok=True)
        part = copy.with_name(f"{copy.name}.{secrets.token_hex(4)}.part")
        try:
            with part.open("wb") as file:
                for block in self._storage.blocks(name):
                    file.write(block)
            part.rename(copy)
        finally:
            part.unlink(missing_ok=True)
        return copy
