"""The file that holds the pictures of a study: images, references and predictions, not pickled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reports.array_file import read_arrays, texts_of, write_arrays
from unetpp.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overlays:
    """Pictures of n cases under a arms.

    Attributes:
        case_ids, reasons: n texts each.
        arms: a arm names.
        images: uint8 [n, H, W, 3], as they are shown.
        masks: uint8 [n, H, W], 0 background, above 0 foreground.
        predictions: uint8 [n, a, H, W], of the primary output of the run that held the case out.

    Raises:
        UserError: when the shapes do not belong together.
    """

    case_ids: tuple[str, ...]
    reasons: tuple[str, ...]
    arms: tuple[str, ...]
    images: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.uint8]
    predictions: npt.NDArray[np.uint8]

    def __post_init__(self) -> None:
        n, size = len(self.case_ids), self.masks.shape[1:]
        want = {
            "reasons": (n,),
            "images": (n, *size, 3),
            "masks": (n, *size),
            "predictions": (n, len(self.arms), *size),
        }
        for name, shape in want.items():
            got = np.shape(getattr(self, name))
            if got != shape:
                raise UserError(
                    f"`{name}` of {n} overlays must have the shape {shape}, but got {got}"
                )


_TEXTS = ("case_ids", "reasons", "arms")
_KINDS = {
    **dict.fromkeys(_TEXTS, "str"),
    **dict.fromkeys(("images", "masks", "predictions"), "uint8"),
}
# A page with more pictures is none that a study wrote.
_MOST_CASES = 1000


def overlays_name(study: str) -> str:
    """The name of the file of a study, in its folder."""
    return f"overlays-{study}.npz"


def write_overlays(path: Path, overlays: Overlays) -> None:
    """Write the file in one step: a killed process leaves the old one or none."""
    write_arrays(path, {name: getattr(overlays, name) for name in _KINDS})


def read_overlays(path: Path) -> Overlays:
    """Read what `write_overlays` wrote; nothing is unpickled.

    Raises:
        UserError: when the file is not such a one.
    """
    arrays = read_arrays(path, _KINDS, what="overlays")
    texts = texts_of(path, arrays, _TEXTS, most=_MOST_CASES)
    return Overlays(**texts, **arrays)  # pyright: ignore[reportArgumentType]
