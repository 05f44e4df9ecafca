"""Distances between the boundaries of two masks, in physical units. NumPy and SciPy only.

The boundary of a mask is the mask minus its erosion with the cross of 4 (6) neighbours, where
what lies beyond the image counts as background: pixels of a mask at the image border are boundary.
A boundary is a set of pixels and each of them weighs the same. DeepMind's surface-distance weighs
by the length (area) of the surface on a grid shifted by half a pixel, so its averages and its
surface Dice differ from these.

Shapes: *S the axes of an image or a volume, D their number, P the pixels of a boundary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree

# 3 pixels of 0.1 mm are a hair more than 0.3 mm in floating point, yet within a tolerance of 0.3.
_SLACK = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfaceScores:
    """How far the boundaries of one prediction and its truth are from each other.

    The distances are in the unit of the spacing, and NaN where either mask is empty; `impute`
    gives those that a mean needs.

    Attributes:
        hd: Hausdorff distance, the largest of all distances from one boundary to the other.
        hd95: the larger of the two directed 95th percentiles (linear interpolation), as Metrics
            Reloaded and MONAI have it. MedPy's percentile of both directions pooled is another
            number: the smaller boundary weighs less in it.
        assd: the mean over the pixels of both boundaries together.
        masd: the mean of the two directed means.
        tolerance: up to which a pixel of a boundary counts as near the other boundary.
        near_predicted: pixels of the predicted boundary that are near; near_truth: of the true one.
        size_predicted: pixels of the predicted boundary; size_truth: of the true one.
    """

    hd: float
    hd95: float
    assd: float
    masd: float
    tolerance: float
    near_predicted: int
    near_truth: int
    size_predicted: int
    size_truth: int

    @property
    def nsd(self) -> float:
        """The normalised surface Dice at `tolerance`, see `nsd`."""
        return float(
            nsd(self.near_predicted, self.near_truth, self.size_predicted, self.size_truth)
        )


def surface_distances(
    predicted: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    spacing: Sequence[float],
    *,
    tolerance: float,
) -> SurfaceScores:
    """Compare the boundaries of two masks.

    Args:
        predicted: bool [*S].
        truth: bool [*S].
        spacing: [D], the size of a pixel along each axis, above 0; 1 everywhere gives pixels.
        tolerance: in the unit of `spacing`, 0 or more.
    """
    assert predicted.shape == truth.shape
    assert predicted.dtype == truth.dtype == np.bool_
    assert len(spacing) == truth.ndim
    assert tolerance >= 0 < min(spacing)
    found, true = boundary(predicted), boundary(truth)
    from_found, from_true = _directed(found, true, spacing), _directed(true, found, spacing)
    hd = hd95 = assd = masd = np.nan
    if len(from_found) and len(from_true):
        both = (from_found, from_true)
        hd = max(distances.max() for distances in both)
        hd95 = max(np.percentile(distances, 95) for distances in both)
        assd = np.concatenate(both).mean()
        masd = (from_found.mean() + from_true.mean()) / 2
    near = tolerance * (1 + _SLACK)
    return SurfaceScores(
        hd=float(hd),
        hd95=float(hd95),
        assd=float(assd),
        masd=float(masd),
        tolerance=tolerance,
        near_predicted=int(np.count_nonzero(from_found <= near)),
        near_truth=int(np.count_nonzero(from_true <= near)),
        size_predicted=len(from_found),
        size_truth=len(from_true),
    )


def boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of `mask` [*S] with a neighbour along an axis that is background or off the image."""
    # What a binary erosion gives, by shifts along each axis: ten times faster.
    inner = mask.copy()
    for axis in range(mask.ndim):
        along, values = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)
        along[1:] &= values[:-1]
        along[:-1] &= values[1:]
        along[[0, -1]] = False
    return mask & ~inner


def nsd(
    near_predicted: ArrayLike,
    near_truth: ArrayLike,
    size_predicted: ArrayLike,
    size_truth: ArrayLike,
) -> NDArray[np.float64]:
    """Normalised surface Dice, element by element: the share of both boundaries that is near.

    0 where one mask is empty, NaN where both are. Counts are in pixels, see `SurfaceScores`; on
    sums over cases it is the pooled score.
    """
    near = np.asarray(near_predicted, np.float64) + np.asarray(near_truth, np.float64)
    size = np.asarray(size_predicted, np.float64) + np.asarray(size_truth, np.float64)
    with np.errstate(invalid="ignore"):
        return near / size


def impute(scores: SurfaceScores, diagonal: float) -> tuple[SurfaceScores, bool]:
    """The scores that a mean may take, and whether they were made up.

    Where one mask is empty, no distance exists and the case would drop out of a mean, which then
    improves as more objects are missed. Such a case gets the worst value: `diagonal` for each of
    the distances (its NSD is 0 by its counts). Where both are empty there is nothing to measure
    and the NaN stays; so do all other scores.

    Args:
        scores: of one case.
        diagonal: of its image, see `image_diagonal`.
    """
    if (scores.size_predicted == 0) == (scores.size_truth == 0):
        return scores, False
    return replace(scores, hd=diagonal, hd95=diagonal, assd=diagonal, masd=diagonal), True


def image_diagonal(shape: Sequence[int], spacing: Sequence[float]) -> float:
    """From corner to corner of an image [*S], in the unit of `spacing`: beyond any distance in it."""
    return float(np.linalg.norm([n * s for n, s in zip(shape, spacing, strict=True)]))


def _directed(
    source: NDArray[np.bool_], target: NDArray[np.bool_], spacing: Sequence[float]
) -> NDArray[np.float64]:
    """Distance [P] of each pixel of `source` to the nearest one of `target`; inf if it has none.

    The values of a Euclidean distance transform of `target`, without the rest of the image: a tree
    over the boundary's pixels takes a third of its time on a large image, and little memory.
    """
    apart = source & ~target
    distances = np.zeros(np.count_nonzero(source))
    if apart.any():
        scale = np.asarray(spacing, np.float64)
        # Pixels on both boundaries are at 0 and come first: their order does not matter.
        tree = KDTree(np.argwhere(target) * scale)
        distances[-np.count_nonzero(apart) :] = tree.query(np.argwhere(apart) * scale)[0]
    return distances
