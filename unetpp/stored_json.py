"""JSON in the columns of a database: read back as it was written, or refused in a sentence."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from unetpp.errors import UserError

_T = TypeVar("_T")


class RecordError(UserError):
    """A record is not as a program of this version wrote it.

    Attributes:
        reason: which part of it, and why.
    """

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(
            f"records must be as a study wrote them, but {what} cannot be read ({reason}); take a "
            "backup of the store"
        )
        self.reason = reason


class StoredJson(Generic[_T]):
    """A frozen description as the text in a column.

    Args:
        kind: its class.
        what: its name in a sentence, with an article.
    """

    def __init__(self, kind: type[_T], what: str) -> None:
        self._adapter: TypeAdapter[_T] = TypeAdapter(kind)
        self._what = what

    def write(self, value: _T) -> str:
        """All of it."""
        return self._adapter.dump_json(value).decode()

    def read(self, text: str | bytes) -> _T:
        """What `write` gave.

        Raises:
            RecordError: on anything else; whoever can write to a database can write anything.
        """
        try:
            return self._adapter.validate_json(text)
        except ValidationError as error:
            raise RecordError(self._what, first_fault(error)) from None


def first_fault(error: ValidationError) -> str:
    """The first of its reasons and where it is, in one short line, without the value."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))[:80] or "the whole"
    return " ".join(f"{place}: {first['msg']}".split())[:300]
