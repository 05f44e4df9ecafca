"""Overlap of masks: counts first, ratios later. NumPy only.

Shapes: N cases, *S the axes of an image or a volume.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Counts(NamedTuple):
    """Pixels per case, int64 [N]: they sum to the size of *S."""

    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]
    tn: NDArray[np.int64]


def count_overlap(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Counts:
    """True and false positives and negatives of each case.

    Args:
        predicted: bool [N, *S].
        truth: bool [N, *S].
    """
    assert predicted.shape == truth.shape
    assert predicted.dtype == truth.dtype == np.bool_
    axes = tuple(range(1, predicted.ndim))
    both = np.count_nonzero(predicted & truth, axis=axes)
    positive = np.count_nonzero(predicted, axis=axes)
    true = np.count_nonzero(truth, axis=axes)
    size = int(np.prod(predicted.shape[1:]))
    return Counts(
        *(
            np.asarray(v, np.int64)
            for v in (both, positive - both, true - both, size - positive - true + both)
        )
    )


def dice(tp: ArrayLike, fp: ArrayLike, fn: ArrayLike) -> NDArray[np.float64]:
    """2 TP / (2 TP + FP + FN), element by element; NaN where truth and prediction are empty."""
    tp, fp, fn = (np.asarray(v, np.float64) for v in (tp, fp, fn))
    with np.errstate(invalid="ignore"):
        return 2 * tp / (2 * tp + fp + fn)


def iou(tp: ArrayLike, fp: ArrayLike, fn: ArrayLike) -> NDArray[np.float64]:
    """TP / (TP + FP + FN), element by element; NaN where truth and prediction are empty."""
    tp, fp, fn = (np.asarray(v, np.float64) for v in (tp, fp, fn))
    with np.errstate(invalid="ignore"):
        return tp / (tp + fp + fn)
