"""Cases as a report shows them, with the predictions of every arm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from reports.overlays import Overlays, choose_cases
from reports.records import load_study
from studies._prepare import Prepared
from unetpp.data.datasets import Dataset
from unetpp.run import predict_case
from unetpp.store import RecordStore

# Pixels of a side of a picture whose cases differ in size.
_SHOWN_SIDE = 256


def draw_overlays(ready: Prepared, store: RecordStore, folder: Path) -> Overlays | None:
    """Images, masks and every arm's prediction of the cases that the report's rule chooses.

    None when no case has a score, because truth and prediction are empty everywhere.
    """
    bench = replace(ready.bench, seed=ready.manifest.seed)
    chosen = choose_cases(load_study(folder, ready.study.name, store=store.url))
    if not chosen:
        return None
    pictures = [
        picture(
            bench.dataset,
            choice.case,
            [
                predict_case(bench, spec, choice.fold, store, case=choice.case)
                for spec in ready.specs.values()
            ],
        )
        for choice in chosen
    ]
    return Overlays(
        case_ids=tuple(choice.case for choice in chosen),
        reasons=tuple(choice.reason for choice in chosen),
        arms=tuple(ready.specs),
        images=np.stack([image for image, _, _ in pictures]),
        masks=np.stack([mask for _, mask, _ in pictures]),
        predictions=np.stack([predictions for _, _, predictions in pictures]),
    )


def picture(
    dataset: Dataset, case: str, predictions: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A case as it is shown: image uint8 [H, W, 3], mask [H, W], one prediction an arm [a, H, W].

    Of a volume it is the slice across the last axis with the most foreground. Cases of different
    sizes are brought to one for the eye, masks by their nearest pixel.
    """
    position = dataset.case_ids.index(case)
    image, mask = dataset.arrays.image(position), one_plane(dataset.arrays.mask(position))
    found = np.array([one_plane(p) for p in predictions]).reshape(-1, *mask.shape)
    if mask.ndim == 3:
        best = int((mask > 0).sum(axis=(0, 1)).argmax())
        image, mask, found = image[..., best], mask[..., best], found[..., best]
    image = displayable(image)
    if dataset.shape is None:
        rows, columns = ((np.arange(_SHOWN_SIDE) * side) // _SHOWN_SIDE for side in mask.shape)
        image = image[rows][:, columns]
        mask = mask[rows][:, columns]
        found = found[:, rows][:, :, columns]
    return image, mask, found


def one_plane(mask: np.ndarray) -> np.ndarray:
    """Class indices [*S] of a mask [M, *S]; where classes overlap, the last is on top."""
    if len(mask) == 1:
        return mask[0]
    order = np.arange(1, len(mask) + 1, dtype=np.uint8).reshape(-1, *(1,) * (mask.ndim - 1))
    return (order * (mask > 0)).max(axis=0)


def displayable(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] of [C, H, W], with its intensities stretched over the whole range."""
    low, high = image.min(), image.max()
    stretched = np.round(255 * (image - low) / max(high - low, 1e-6)).astype(np.uint8)
    colour = stretched[:3] if len(stretched) >= 3 else stretched[[0, 0, 0]]
    return np.ascontiguousarray(np.moveaxis(colour, 0, 2))
