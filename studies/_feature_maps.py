"""Maps along the top skip path of every arm, for the figure of the paper and its numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reports.feature_map_file import FeatureMaps
from reports.overlays import choose_cases
from reports.records import load_study
from studies._pictures import displayable, one_plane
from studies._prepare import Prepared
from unetpp.data.datasets import Dataset
from unetpp.run import held_out_of
from unetpp.training.feature_maps import top_path_agreement, top_path_maps

# Worst, median and best of the report's rule.
_CASES = 3


class _Row(NamedTuple):
    """One map; see `FeatureMaps`."""

    case: int
    arm: str
    node: str
    map: NDArray[np.float32]
    follows: float


def map_top_path(ready: Prepared, folder: Path) -> FeatureMaps | None:
    """Maps of the cases that the report's rule chooses, by the networks that did not learn on them.

    None when no case has a score.
    """
    chosen = choose_cases(load_study(folder, ready.study.name), num_cases=_CASES)
    if not chosen:
        return None
    dataset = ready.bench.dataset
    shown = [_shown(dataset, choice.case) for choice in chosen]
    rows: list[_Row] = []
    for number, choice in enumerate(chosen):
        for arm, spec in ready.specs.items():
            model, feed, _ = held_out_of(ready.bench, spec, choice.fold)
            position = feed.index.tolist().index(dataset.case_ids.index(choice.case))
            image, mask = feed.case(position)
            agreement = top_path_agreement(model, image, mask[0].amax(dim=0))
            rows += [
                _Row(number, arm, node, one, agreement.get(node, math.nan))
                for node, one in top_path_maps(model, image).items()
            ]
    # Cases of several sizes are shown at that of the first.
    size = rows[0].map.shape
    return FeatureMaps(
        case_ids=tuple(choice.case for choice in chosen),
        reasons=tuple(choice.reason for choice in chosen),
        images=np.stack([_at_size(image, size) for image, _ in shown]),
        masks=np.stack([_at_size(mask, size) for _, mask in shown]),
        cases=np.array([row.case for row in rows]),
        arms=tuple(row.arm for row in rows),
        nodes=tuple(row.node for row in rows),
        maps=np.stack([_at_size(row.map, size) for row in rows]).astype(np.float16),
        follows=np.array([row.follows for row in rows]),
    )


def _shown(dataset: Dataset, case: str) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 [H, W, 3] and mask [H, W] of a case; of a volume the slice of its maps."""
    position = dataset.case_ids.index(case)
    image, mask = dataset.arrays.image(position), one_plane(dataset.arrays.mask(position))
    if mask.ndim == 3:
        middle = len(mask) // 2
        image, mask = image[:, middle], mask[middle]
    return displayable(image), mask


def _at_size(image: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The nearest pixels of a map at another size."""
    rows, columns = (
        np.arange(s) * have // s for s, have in zip(size, image.shape[:2], strict=True)
    )
    return image[rows][:, columns]
