"""Hashes of files, kept as long as a file's size and times stay: a second start reads no file."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image

from unetpp.data.decoding import cell_value
from unetpp.data.sources import (
    CaseFiles,
    ClassMasks,
    MaskSource,
    ObjectMasks,
    Outlines,
    Pixels,
    TableCell,
)

# A file that changed this shortly before it was hashed may change again within the same tick.
_SETTLED_NS = 2_000_000_000
_PATIENCE_S = 60


class FileHashes:
    """A small table on disk, shared by all processes; to be used as a context.

    Args:
        path: of the table; made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._connection = sqlite3.connect(self._path, timeout=_PATIENCE_S, isolation_level=None)
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, stamp TEXT, hash TEXT)"
        )
        self._known: dict[str, str] = {}
        self._new: list[tuple[str, str, str]] = []
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._new:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("REPLACE INTO files VALUES (?, ?, ?)", self._new)
            self._connection.execute("COMMIT")
        self._connection.close()

    def identity(self, case: CaseFiles) -> list[Any]:
        """What decides how the case is decoded, as JSON: its id, the bytes, and which part of them.

        Raises:
            OSError: a file cannot be read.
        """
        image = [self._source(part) for part in case.image]
        mask = None if case.mask is None else self._source(case.mask)
        return [case.id, image, mask]

    def _source(self, source: MaskSource) -> Any:
        if isinstance(source, Pixels):
            return [self._hash(source.path), source.page, source.axis]
        if isinstance(source, ObjectMasks):
            return [self._hash(path) for path in source.paths]
        if isinstance(source, ClassMasks):
            return [None if part is None else self._source(part) for part in source.files]
        if isinstance(source, Outlines):
            return {**asdict(source), "path": None}
        assert isinstance(source, TableCell)
        return self._cell(cell_value(source))

    def _cell(self, value: Any) -> Any:
        if isinstance(value, Path):
            return self._hash(value)
        if isinstance(value, bytes):
            return ["bytes", _sha256(value)]
        if isinstance(value, Image.Image):
            palette = value.getpalette() if value.mode in ("P", "PA") else None
            return ["picture", value.mode, value.size, palette, _sha256(value.tobytes())]
        array = np.asarray(value)
        # Of objects the bytes are places in memory.
        content = repr(value).encode() if array.dtype.hasobject else array.tobytes()
        return ["array", str(array.dtype), array.shape, _sha256(content)]

    def _hash(self, path: Path) -> str:
        name = str(path.resolve())
        if name not in self._known:
            self._known[name] = self._look_up(name, path)
        return self._known[name]

    def _look_up(self, name: str, path: Path) -> str:
        status = path.stat()
        stamp = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
        query = "SELECT hash FROM files WHERE path = ? AND stamp = ?"
        known = self._connection.execute(query, (name, stamp)).fetchone()
        if known is not None:
            return known[0]
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_NS:
            self._new.append((name, stamp, content))
        return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
