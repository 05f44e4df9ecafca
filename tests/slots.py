"""Places for a checkpoint, as tests need them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from unetpp.errors import UserError


@dataclass
class MemorySlot:
    """In memory; counts what is written."""

    data: bytes | None = None
    writes: list[int] = field(default_factory=list)

    def read(self, most: int = 2**32) -> bytes | None:
        if self.data is not None and len(self.data) > most:
            raise UserError(f"it has more than {most:,} bytes")
        return self.data

    def write(self, data: bytes) -> None:
        self.data = data
        self.writes.append(len(data))

    def remove(self) -> None:
        self.data = None


@dataclass(frozen=True)
class FileSlot:
    """One file, replaced as a whole."""

    path: Path

    def read(self, most: int = 2**32) -> bytes | None:
        return self.path.read_bytes() if self.path.exists() else None

    def write(self, data: bytes) -> None:
        part = self.path.with_suffix(".part")
        part.write_bytes(data)
        part.replace(self.path)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


class BrokenSlot:
    """A place that cannot be reached."""

    def read(self, most: int) -> bytes | None:
        raise OSError("no route to host")

    def write(self, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    def remove(self) -> None:
        raise OSError("no route to host")
