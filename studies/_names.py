"""Names that a user types."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from unetpp.errors import UserError


def pick(name: str, known: Iterable[str], *, what: str) -> str:
    """`name`, if it is known.

    Raises:
        UserError: otherwise, with the nearest known names, or all of them when none is near.
    """
    names = list(known)
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(names)}"
    raise UserError(f"{what} must be a known name, but got {name!r}; {hint}")


def by(shape: Sequence[int]) -> str:
    """Sides as people write them: "96 x 96"."""
    return " x ".join(map(str, shape))
