"""Maps along the top skip path of every arm, for the figure of the paper and its numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reports.feature_map_file import FeatureMaps
from reports.overlays import choose_cases
from reports.records import load_study
from studies._pictures import picture
from studies._prepare import Prepared
from unetpp.run import held_out_of
from unetpp.training.feature_maps import TopPathMap, top_path_maps

# Worst, median and best of the report's rule.
_CASES = 3


def map_top_path(ready: Prepared, folder: Path) -> FeatureMaps | None:
    """Maps of the cases that the report's rule chooses, by the networks that did not learn on them.

    None when no case has a score.
    """
    chosen = choose_cases(load_study(folder, ready.study.name), num_cases=_CASES)
    if not chosen:
        return None
    dataset = ready.bench.dataset
    shown = [picture(dataset, choice.case, []) for choice in chosen]
    found: list[tuple[int, str, TopPathMap]] = []
    for number, choice in enumerate(chosen):
        for arm, spec in ready.specs.items():
            model, feed, _ = held_out_of(ready.bench, spec, choice.fold)
            position = feed.index.tolist().index(dataset.case_ids.index(choice.case))
            image, mask = feed.case(position)
            found += [(number, arm, one) for one in top_path_maps(model, image, mask)]
    # Cases of several sizes are shown at that of the first.
    size = found[0][2].map.shape
    return FeatureMaps(
        case_ids=tuple(choice.case for choice in chosen),
        reasons=tuple(choice.reason for choice in chosen),
        images=np.stack([image for image, _, _ in shown]),
        masks=np.stack([mask for _, mask, _ in shown]),
        cases=np.array([number for number, _, _ in found]),
        arms=tuple(arm for _, arm, _ in found),
        nodes=tuple(one.node for _, _, one in found),
        maps=np.stack([_at_size(one.map, size) for _, _, one in found]).astype(np.float16),
        follows=np.array([one.follows for _, _, one in found]),
    )


def _at_size(image: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The nearest pixels of a map at another size."""
    rows, columns = (np.arange(s) * have // s for s, have in zip(size, image.shape, strict=True))
    return image[rows][:, columns]
