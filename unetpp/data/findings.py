"""What a look at the data found: one sentence each, with a weight and the file that it is about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unetpp.errors import UserError

Weight = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, doubtful or worth knowing.

    Attributes:
        weight: "error": training refuses. "warning": training goes on, and says it
            if it was found in reading. "note": only the check says it.
        code: what kind of thing, in lower case with hyphens, such as "truncated-file"; for
            counting and for tests. It never changes its meaning.
        path: the file or folder; None where it is about the whole set.
        text: one sentence with the law, the value and the way out; it names the file.
    """

    weight: Weight
    code: str
    path: Path | None
    text: str

    def __post_init__(self) -> None:
        assert self.code == self.code.lower()
        assert " " not in self.code
        assert self.text
        assert "\n" not in self.text


class BadFileError(UserError):
    """A file that cannot be used; its `finding` is an error and its text is the finding's."""

    def __init__(self, code: str, path: Path, text: str) -> None:
        super().__init__(text)
        self.finding = Finding(weight="error", code=code, path=path, text=text)
