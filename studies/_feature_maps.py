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
from unetpp.store import RecordStore
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


class View(NamedTuple):
    """Which part of a case is shown.

    window: along every axis of *S.
    at: of a volume, the slice along the first axis of the window: that with most of the object.
    """

    window: tuple[slice, ...]
    at: int


def map_top_path(ready: Prepared, store: RecordStore, folder: Path) -> FeatureMaps | None:
    """Maps of the cases that the report's rule chooses, by the networks that did not learn on them.

    None when no case has a score.
    """
    chosen = choose_cases(load_study(folder, ready.study.name, store=store.url), num_cases=_CASES)
    if not chosen:
        return None
    dataset = ready.bench.dataset
    views = [view_of(dataset, choice.case, ready.bench.recipe.patch) for choice in chosen]
    shown = [_shown(dataset, choice.case, view) for choice, view in zip(chosen, views, strict=True)]
    rows: list[_Row] = []
    for number, (choice, view) in enumerate(zip(chosen, views, strict=True)):
        for arm, spec in ready.specs.items():
            model, feed, _ = held_out_of(ready.bench, spec, choice.fold, store)
            position = feed.index.tolist().index(dataset.case_ids.index(choice.case))
            image, mask = (x[(..., *view.window)] for x in feed.case(position))
            agreement = top_path_agreement(model, image, mask[0].amax(dim=0), at=view.at)
            rows += [
                _Row(number, arm, node, one, agreement.get(node, math.nan))
                for node, one in top_path_maps(model, image, at=view.at).items()
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


def view_of(dataset: Dataset, case: str, patch: tuple[int, ...] | None) -> View:
    """The whole case, or a patch around its object where the network knows patches alone."""
    there = one_plane(dataset.arrays.mask(dataset.case_ids.index(case))) > 0
    if patch is None:
        window = (slice(None),) * there.ndim
    else:
        points = np.argwhere(there)
        # The middle of several objects may be none of them: the pixel of one that is nearest.
        middle = points.mean(axis=0) if len(points) else np.array(there.shape) / 2
        if len(points):
            middle = points[np.abs(points - middle).sum(axis=1).argmin()]
        starts = np.clip(middle.astype(int) - np.array(patch) // 2, 0, None)
        starts = np.minimum(starts, np.maximum(np.array(there.shape) - patch, 0))
        window = tuple(slice(s, s + n) for s, n in zip(starts.tolist(), patch, strict=True))
    in_slice = np.count_nonzero(there[window], axis=tuple(range(1, there.ndim)))
    return View(window, int(in_slice.argmax()) if in_slice.any() else len(in_slice) // 2)


def _shown(dataset: Dataset, case: str, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 [H, W, 3] and mask [H, W] of a case where its maps are."""
    position = dataset.case_ids.index(case)
    image = dataset.arrays.image(position)[(..., *view.window)]
    mask = one_plane(dataset.arrays.mask(position))[view.window]
    if mask.ndim == 3:
        image, mask = image[:, view.at], mask[view.at]
    return displayable(image), mask


def _at_size(image: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The nearest pixels of a map at another size."""
    rows, columns = (
        np.arange(s) * have // s for s, have in zip(size, image.shape[:2], strict=True)
    )
    return image[rows][:, columns]
