"""Folds as a JSON file that stays as it was written, or is refused."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from unetpp.data.findings import BadFileError
from unetpp.data.folds import Folds
from unetpp.errors import UserError

# Ten rounds of a hundred thousand cases with ids of 60 characters; more is no file of ours.
_MOST_BYTES = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    version: Literal[2]
    hash: str
    folds: Folds


_STORED_JSON = TypeAdapter(_Stored)


def write_folds(folds: Folds, path: Path) -> None:
    """Writes the folds as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id keeps two that start at once from writing into one file.
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    unfinished.write_bytes(folds_to_json(folds).encode())
    unfinished.replace(path)


def folds_to_json(folds: Folds) -> str:
    """What `write_folds` writes."""
    stored = _Stored(version=2, hash=folds.hash, folds=folds)
    return f"{_STORED_JSON.dump_json(stored, indent=1).decode()}\n"


def folds_from_json(text: str | bytes) -> Folds | None:
    """What `folds_to_json` wrote; None for anything else, and for what its hash does not confirm."""
    try:
        stored = _STORED_JSON.validate_json(text)
    except ValidationError:
        return None
    return stored.folds if stored.hash == stored.folds.hash else None


def read_folds(path: Path) -> Folds:
    """Reads what `write_folds` wrote.

    Raises:
        UserError: no such file.
        BadFileError: it cannot be read, is larger than folds are, holds no folds of this version, or
            has a content that its hash does not confirm.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"There are no folds at `{path}`; make them first.") from None
    except OSError as error:
        raise BadFileError(
            "unreadable-folds",
            path,
            f"`{path}` must be a readable file of folds, but reading failed ({error.strerror}); "
            "mend its place or its rights.",
        ) from None
    if len(text) > _MOST_BYTES:
        raise BadFileError(
            "oversized-folds",
            path,
            f"`{path}` must hold folds, which take at most {_MOST_BYTES // 10**6} MB, but it is "
            "larger; give the file that the study wrote.",
        )
    folds = folds_from_json(text)
    if folds is None:
        raise BadFileError(
            "changed-folds",
            path,
            f"`{path}` must hold folds as this version writes them, but it was changed, damaged or "
            "written by another version; restore it, or delete it and make the folds anew.",
        )
    return folds
