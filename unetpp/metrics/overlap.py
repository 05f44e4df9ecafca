"""Overlap of masks: counts first, ratios later. NumPy only.

Shapes: N cases, *S the axes of an image or a volume.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unetpp.errors import UserError


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
    return _ratio(2 * tp, 2 * tp + fp + fn)


def iou(tp: ArrayLike, fp: ArrayLike, fn: ArrayLike) -> NDArray[np.float64]:
    """TP / (TP + FP + FN), element by element; NaN where truth and prediction are empty."""
    tp, fp, fn = (np.asarray(v, np.float64) for v in (tp, fp, fn))
    return _ratio(tp, tp + fp + fn)


def precision(tp: ArrayLike, fp: ArrayLike) -> NDArray[np.float64]:
    """TP / (TP + FP), element by element; NaN where the prediction is empty.

    A missed object is thus left out of a mean precision; only the recall beside it shows the miss.
    """
    tp, fp = (np.asarray(v, np.float64) for v in (tp, fp))
    return _ratio(tp, tp + fp)


def recall(tp: ArrayLike, fn: ArrayLike) -> NDArray[np.float64]:
    """TP / (TP + FN), the sensitivity, element by element; NaN where the truth is empty."""
    tp, fn = (np.asarray(v, np.float64) for v in (tp, fn))
    return _ratio(tp, tp + fn)


def specificity(fp: ArrayLike, tn: ArrayLike) -> NDArray[np.float64]:
    """TN / (TN + FP), element by element; NaN where the truth fills the image."""
    fp, tn = (np.asarray(v, np.float64) for v in (fp, tn))
    return _ratio(tn, tn + fp)


@dataclass(frozen=True, slots=True)
class Metric:
    """A ratio of the four counts.

    Attributes:
        label: as tables print it.
        formula: as notes print it.
        ratio: from tp, fp, fn, tn, element by element; NaN where it is 0/0.
    """

    label: str
    formula: str
    ratio: Callable[[ArrayLike, ArrayLike, ArrayLike, ArrayLike], NDArray[np.float64]]


METRICS: Mapping[str, Metric] = {
    "dice": Metric("Dice", "2 TP / (2 TP + FP + FN)", lambda tp, fp, fn, _: dice(tp, fp, fn)),
    "iou": Metric("IoU", "TP / (TP + FP + FN)", lambda tp, fp, fn, _: iou(tp, fp, fn)),
    "precision": Metric("precision", "TP / (TP + FP)", lambda tp, fp, _fn, _tn: precision(tp, fp)),
    "recall": Metric("recall", "TP / (TP + FN)", lambda tp, _fp, fn, _tn: recall(tp, fn)),
    "specificity": Metric(
        "specificity", "TN / (TN + FP)", lambda _tp, fp, _fn, tn: specificity(fp, tn)
    ),
}

EmptyPolicy = Literal["nan", "one", "drop_empty_gt"]

# As notes print them.
EMPTY_POLICIES: Mapping[EmptyPolicy, str] = {
    "nan": "a score that is 0/0 is left out; a false positive on an empty reference scores as it is",
    "one": "a score that is 0/0 is 1 where no pixel is wrong, else 0; no case is left out",
    "drop_empty_gt": "a case with an empty reference is left out, whatever was predicted",
}


def score(
    name: str,
    tp: ArrayLike,
    fp: ArrayLike,
    fn: ArrayLike,
    tn: ArrayLike,
    *,
    empty: EmptyPolicy = "nan",
) -> NDArray[np.float64]:
    """The metric `name` of `METRICS`, element by element, under a rule for empty masks.

    | masks | metric | nan | one | drop_empty_gt |
    |---|---|---|---|---|
    | both empty | dice, iou, precision, recall | NaN | 1 | NaN |
    | | specificity | 1 | 1 | NaN |
    | only the truth empty | dice, iou, precision | 0 | 0 | NaN |
    | | recall | NaN | 0 | NaN |
    | | specificity | TN / (TN + FP) | the same | NaN |
    | only the prediction empty | dice, iou, recall | 0 | 0 | 0 |
    | | precision | NaN | 0 | NaN |
    | | specificity | 1 | 1 | 1 |
    | truth fills the image, so does the prediction | specificity | NaN | 1 | NaN |
    | truth fills the image, the prediction does not | specificity | NaN | 0 | NaN |

    "nan" is what nnU-Net does with Dice, "one" what segmentation_models_pytorch and MONAI with
    `ignore_empty=False` do with it, "drop_empty_gt" is MONAI's default. Under "drop_empty_gt"
    nothing tells of false positives on empty images, the specificity least of all.

    The pooled score of several cases is the same function of the sums of their counts. False
    positives on empty references then count under every rule.

    Raises:
        UserError: there is no such metric, or no such rule.
    """
    if name not in METRICS:
        raise UserError(f"a metric is one of {', '.join(METRICS)}, but `{name}` is none of them")
    tp, fp, fn, tn = (np.asarray(v, np.float64) for v in (tp, fp, fn, tn))
    ratio = METRICS[name].ratio(tp, fp, fn, tn)
    return settle_empty(ratio, truth_is_empty=tp + fn == 0, is_right=fp + fn == 0, empty=empty)


def settle_empty(
    ratio: ArrayLike, *, truth_is_empty: ArrayLike, is_right: ArrayLike, empty: EmptyPolicy
) -> NDArray[np.float64]:
    """Scores under a rule for empty masks, from ratios that are NaN where they are 0/0.

    Args:
        ratio: any shape, as the rest.
        truth_is_empty: nothing was there to be found.
        is_right: nothing is wrong with the prediction.
        empty: see `EMPTY_POLICIES`.

    Raises:
        UserError: there is no such rule.
    """
    ratio = np.asarray(ratio, np.float64)
    match empty:
        case "nan":
            return ratio
        case "one":
            return np.where(np.isnan(ratio), np.asarray(is_right, np.float64), ratio)
        case "drop_empty_gt":
            return np.where(truth_is_empty, np.nan, ratio)
        case _:
            raise UserError(
                f"a rule for empty masks is one of {', '.join(EMPTY_POLICIES)}, "
                f"but `{empty}` is none of them"
            )


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return part / whole
