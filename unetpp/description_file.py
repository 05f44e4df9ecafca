"""Descriptions beside the weights of a network, as JSON in a small file of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from unetpp.errors import UserError
from unetpp.provenance import package_versions
from unetpp.stored_json import first_fault

_MOST_BYTES = 2**20

_T = TypeVar("_T")


def read_description(path: Path, adapter: TypeAdapter[_T], *, writer: str) -> tuple[_T, bytes]:
    """What a file describes, and its text.

    Args:
        path: of a file that is there.
        adapter: of what it describes.
        writer: name of the function that writes such files.

    Raises:
        UserError: the file is larger than 1 MiB, or describes something else.
    """
    with path.open("rb") as stream:
        text = stream.read(_MOST_BYTES + 1)
    if len(text) > _MOST_BYTES:
        raise UserError(
            f"a description takes at most {_MOST_BYTES} bytes, but {path} is larger; it is not one "
            f"that {writer} wrote"
        )
    try:
        return adapter.validate_json(text), text
    except ValidationError as error:
        raise UserError(
            f"{path} must be a description that {writer} wrote, but {first_fault(error)}; this is "
            f"version {_own_version()} of unetpp"
        ) from error


def not_known(path: Path, version: str, what: str) -> UserError:
    """The refusal of a description that another version wrote.

    Args:
        path: of the file.
        version: that wrote it.
        what: is not known to this one.
    """
    return UserError(
        f"{path} was written by unetpp {version} and has {what}, which version {_own_version()} "
        "does not know; install the other one"
    )


def _own_version() -> str:
    return package_versions()["unetpp"]
