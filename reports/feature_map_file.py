"""The file that holds maps along the top skip path of a study's networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reports.array_file import read_arrays, texts_of, write_arrays
from unetpp.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureMaps:
    """m maps of n cases; a map is of one case, one arm and one node.

    Attributes:
        case_ids, reasons: n texts each: the cases and why they were chosen.
        images: uint8 [n, H, W, 3], as they are shown.
        masks: uint8 [n, H, W], 0 background, above 0 foreground.
        cases: int [m], which of the n cases.
        arms, nodes: m texts each, the node as "X_0_2".
        maps: float [m, h, w], mean over the channels of the absolute activation.
        follows: float [m], in 0..1: the largest absolute point-biserial correlation of any channel
            with the mask; NaN where the mask is all one class.

    Raises:
        UserError: when the shapes do not belong together.
    """

    case_ids: tuple[str, ...]
    reasons: tuple[str, ...]
    images: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.uint8]
    cases: npt.NDArray[np.int64]
    arms: tuple[str, ...]
    nodes: tuple[str, ...]
    maps: npt.NDArray[np.float16]
    follows: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        n, m, size = len(self.case_ids), len(self.arms), self.masks.shape[1:]
        want = {
            "reasons": (n,),
            "images": (n, *size, 3),
            "masks": (n, *size),
            "cases": (m,),
            "nodes": (m,),
            "maps": (m, *self.maps.shape[1:]),
            "follows": (m,),
        }
        for name, shape in want.items():
            got = np.shape(getattr(self, name))
            if got != shape:
                raise UserError(
                    f"`{name}` of {m} feature maps of {n} cases must have the shape {shape}, but "
                    f"got {got}"
                )
        if m and not 0 <= int(self.cases.min()) <= int(self.cases.max()) < n:
            raise UserError(
                f"`cases` of feature maps must lie in 0..{n - 1}, but got {self.cases.min()} to "
                f"{self.cases.max()}"
            )


_TEXTS = ("case_ids", "reasons", "arms", "nodes")
_KINDS = {
    **dict.fromkeys(_TEXTS, "str"),
    **dict.fromkeys(("images", "masks"), "uint8"),
    "cases": "int64",
    "maps": "float16",
    "follows": "float64",
}
# A page with more maps is none that a study wrote.
_MOST_MAPS = 10_000


def feature_maps_name(study: str) -> str:
    """The name of the file of a study, in its folder."""
    return f"feature_maps-{study}.npz"


def write_feature_maps(path: Path, maps: FeatureMaps) -> None:
    """Write the file in one step."""
    write_arrays(path, {name: getattr(maps, name) for name in _KINDS})


def read_feature_maps(path: Path) -> FeatureMaps:
    """Read what `write_feature_maps` wrote; nothing is unpickled.

    Raises:
        UserError: when the file is not such a one.
    """
    arrays = read_arrays(path, _KINDS, what="feature maps")
    texts = texts_of(path, arrays, _TEXTS, most=_MOST_MAPS)
    return FeatureMaps(**texts, **arrays)  # pyright: ignore[reportArgumentType]
