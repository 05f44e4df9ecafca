"""Objects of semantic masks: matched once, scored later. NumPy and SciPy only.

An object is a face-connected component of a mask: pixels hang together along an axis (4 neighbours
in an image, 6 in a volume), never over a corner only. Objects that touch are mostly two in truth,
so the rule that joins less is the better one; see `match_objects`.

Shapes: *S the axes of an image or a volume, R objects of the truth, P predicted objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from unetpp.metrics.overlap import EmptyPolicy, settle_empty

# Quotients and not sums: an IoU of 18/20 is then equal to the threshold and not a hair apart.
THRESHOLDS = tuple(k / 20 for k in range(10, 20))

# Areas in pixels that part small, medium and large objects in COCO: 32 x 32 and 96 x 96.
COCO_EDGES = (1024, 9216)

# As COCO makes them, to the last digit: recalls such as 7/20 would otherwise fall on another one.
_RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectMatch:
    """The objects of one case and their partners: all that the scores below need.

    An IoU is that with the partner, 0 without one. It must be stored as a float64: scores ask
    whether it is equal to a threshold.

    Attributes:
        reference_sizes: [R] pixels.
        reference_ious: [R].
        predicted_sizes: [P] pixels.
        predicted_ious: [P], the positive ones are those of `reference_ious` in another order.
        predicted_scores: [P] mean confidence over the object's pixels; NaN where none was given.
    """

    reference_sizes: tuple[int, ...]
    reference_ious: tuple[float, ...]
    predicted_sizes: tuple[int, ...]
    predicted_ious: tuple[float, ...]
    predicted_scores: tuple[float, ...]


def match_objects(
    predicted: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    confidence: NDArray[np.floating] | None = None,
) -> ObjectMatch:
    """Take both masks apart into objects and pair them, one to one, by their IoU.

    The pair with the largest IoU comes first, then the next one of which neither object is taken;
    of equal ones, that of the predicted object which comes first in the image. From an IoU of 0.5
    on this is the only pairing there is. (Two at exactly 0.5 would be halves that make up the
    third; but then they touch and are one component.) Below 0.5 only the order makes it one to one.

    Components over faces, not over corners: over all 664 images of the Data Science Bowl 2018,
    whose 28,986 nuclei are annotated one by one, the masks have 24,111 components over faces and
    23,891 over corners too; resized to 96 x 96, 21,751 and 20,343. The price is that a stray pixel
    at a corner of an object is a false positive of its own.

    Args:
        predicted: bool [*S].
        truth: bool [*S].
        confidence: [*S], for example the probability of the class; None where there is none.
    """
    assert predicted.shape == truth.shape
    assert predicted.dtype == truth.dtype == np.bool_
    found, sizes_P = _components(predicted)
    true, sizes_R = _components(truth)
    scores_P = _means(found, sizes_P, confidence)
    of_P, of_R, shared = _overlaps(found, true, len(sizes_R))
    iou = shared / (sizes_P[of_P] + sizes_R[of_R] - shared)
    order = np.lexsort((of_R, of_P, -iou))
    pairs = order[_one_to_one(of_P[order], of_R[order])]
    ious_P, ious_R = np.zeros(len(sizes_P)), np.zeros(len(sizes_R))
    ious_P[of_P[pairs]] = ious_R[of_R[pairs]] = iou[pairs]
    return ObjectMatch(
        reference_sizes=tuple(sizes_R.tolist()),
        reference_ious=tuple(ious_R.tolist()),
        predicted_sizes=tuple(sizes_P.tolist()),
        predicted_ious=tuple(ious_P.tolist()),
        predicted_scores=tuple(scores_P.tolist()),
    )


def dsb_score(match: ObjectMatch, *, empty: EmptyPolicy = "nan") -> float:
    """The score of the Data Science Bowl 2018 for one image; it needs no confidence.

    The mean over the IoU thresholds t = 0.5, 0.55 .. 0.95 of TP / (TP + FP + FN), where a pair is
    a hit when its IoU is above t (equal is not enough). Usually averaged over images.

    Args:
        match: of the image.
        empty: without objects in either mask the score is 0/0, see `settle_empty`. Objects
            predicted where there are none score 0.
    """
    ious = np.asarray(match.reference_ious)
    num = len(match.reference_ious) + len(match.predicted_ious)
    tp = np.array([np.count_nonzero(ious > t) for t in THRESHOLDS])
    with np.errstate(invalid="ignore"):
        ratio = (tp / (num - tp)).mean()
    return _settled(ratio, [match], empty)


@dataclass(frozen=True, slots=True, kw_only=True)
class PanopticQuality:
    """Kirillov et al. 2019: pq = sq x rq.

    Attributes:
        pq: sum of the hits' IoU / (TP + FP / 2 + FN / 2).
        sq: segmentation quality, the mean IoU of the hits; NaN without a hit.
        rq: recognition quality, TP / (TP + FP / 2 + FN / 2).
    """

    pq: float
    sq: float
    rq: float


def panoptic_quality(
    matches: Sequence[ObjectMatch], *, empty: EmptyPolicy = "nan"
) -> PanopticQuality:
    """Panoptic quality of one class, pooled over the objects of all `matches`; one is one image.

    A pair is a hit when its IoU is above 0.5.

    Args:
        matches: of the images.
        empty: without objects in any mask all three are 0/0, see `settle_empty`.
    """
    ious = _joined(m.reference_ious for m in matches)
    hits = ious[ious > 0.5]
    num = len(ious) + sum(len(m.predicted_ious) for m in matches)
    with np.errstate(invalid="ignore"):
        sq, rq = np.float64(hits.sum()) / len(hits), np.float64(2 * len(hits)) / num
        pq = np.float64(2 * hits.sum()) / num
    pq, sq, rq = (_settled(value, matches, empty) for value in (pq, sq, rq))
    return PanopticQuality(pq=pq, sq=sq, rq=rq)


def average_precision(
    matches: Sequence[ObjectMatch], thresholds: Sequence[float] = THRESHOLDS
) -> float:
    """COCO's average precision of one class: AP, or AP50 with `thresholds=(0.5,)`.

    The predicted objects of all images are sorted by confidence (stable: equal ones stay in the
    order of images and objects); a hit has an IoU of t or more. The precision at a recall is the
    best at this or a higher recall, taken at the recalls 0, 0.01 .. 1, and 0 beyond the last. The
    mean over recalls, then over thresholds.

    Two things differ from COCO: a class without an object in the truth of any image gives NaN
    where COCO gives -1, and no image is cut to its 100 most confident objects.

    Args:
        matches: of the images; without a confidence the result is NaN.
        thresholds: t, 0.5 or more; below, COCO's pairing depends on the confidence.
    """
    assert min(thresholds) >= 0.5
    num_true = sum(len(m.reference_ious) for m in matches)
    scores = _joined(m.predicted_scores for m in matches)
    if num_true == 0 or np.isnan(scores).any():
        return np.nan
    ious = _joined(m.predicted_ious for m in matches)[np.argsort(-scores, kind="stable")]
    return float(np.mean([_mean_precision(ious >= t, num_true) for t in thresholds]))


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeRecall:
    """How many of the true objects of some sizes were found.

    Attributes:
        low: smallest size of the group, in pixels.
        high: its end, which is not in it; infinite in the last group.
        num: objects of the truth in it, over all images.
        hits: those that have a partner with an IoU above the threshold.
    """

    low: float
    high: float
    num: int
    hits: int

    @property
    def recall(self) -> float:
        """Hits / num; NaN in a group without objects."""
        return self.hits / self.num if self.num else np.nan


def recall_by_size(
    matches: Sequence[ObjectMatch], edges: Sequence[float], *, threshold: float = 0.5
) -> tuple[SizeRecall, ...]:
    """Recall in groups of the true objects' sizes, smallest first.

    False positives have no true size, hence recall and not precision.

    Args:
        matches: of the images.
        edges: ascending sizes in pixels that part the groups, for example `COCO_EDGES` or
            `tertile_edges`; an object of exactly this size is in the upper group.
        threshold: an IoU above it is a hit.
    """
    assert all(low < high for low, high in pairwise(edges))
    sizes = _joined(m.reference_sizes for m in matches)
    hit = _joined(m.reference_ious for m in matches) > threshold
    group = np.searchsorted(np.asarray(edges, np.float64), sizes, side="right")
    num = np.bincount(group, minlength=len(edges) + 1).tolist()
    hits = np.bincount(group[hit], minlength=len(edges) + 1).tolist()
    bounds = pairwise((0.0, *edges, np.inf))
    return tuple(
        SizeRecall(low=low, high=high, num=n, hits=h)
        for (low, high), n, h in zip(bounds, num, hits, strict=True)
    )


def tertile_edges(matches: Sequence[ObjectMatch]) -> tuple[int, ...]:
    """Sizes in pixels that part the true objects into thirds, as well as equal sizes allow.

    Two of them; fewer where most objects have one size, none without objects.
    """
    sizes = _joined(m.reference_sizes for m in matches)
    if not len(sizes):
        return ()
    edges = np.ceil(np.quantile(sizes, (1 / 3, 2 / 3))).astype(int)
    return tuple(int(edge) for edge in np.unique(edges) if edge > sizes.min())


def _components(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Labels [*S], 0 for background, and the size of each label from 1."""
    labels = np.empty(mask.shape, np.int32)
    num = ndimage.label(mask, output=labels)
    assert isinstance(num, int)
    return labels, np.bincount(labels.ravel(), minlength=num + 1)[1:]


def _means(
    labels: NDArray[np.int32],
    sizes_P: NDArray[np.int64],
    confidence: NDArray[np.floating] | None,
) -> NDArray[np.float64]:
    if confidence is None:
        return np.full(len(sizes_P), np.nan)
    assert confidence.shape == labels.shape
    sums = np.bincount(labels.ravel(), confidence.ravel(), minlength=len(sizes_P) + 1)
    return sums[1:] / sizes_P


def _overlaps(
    found: NDArray[np.int32], true: NDArray[np.int32], num_true: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Objects that overlap, from 0, and the pixels that they share; a row a pair."""
    both = (found > 0) & (true > 0)
    # Only pairs that occur: a table of all pairs of a noisy volume would not fit into memory.
    code, shared = np.unique(
        (found[both].astype(np.int64) - 1) * num_true + true[both] - 1, return_counts=True
    )
    return code // max(num_true, 1), code % max(num_true, 1), shared


def _one_to_one(of_P: NDArray[np.int64], of_R: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of the pairs that a walk down the list keeps, when each object may be kept once."""
    kept, rest = [np.empty(0, np.int64)], np.arange(len(of_P))
    while len(rest):
        # Nothing above in the list competes for either of their objects: the walk keeps them all.
        first_P = np.unique(of_P[rest], return_index=True)[1]
        first_R = np.unique(of_R[rest], return_index=True)[1]
        best = rest[np.intersect1d(first_P, first_R)]
        kept.append(best)
        rest = rest[~(np.isin(of_P[rest], of_P[best]) | np.isin(of_R[rest], of_R[best]))]
    return np.concatenate(kept)


def _mean_precision(hit: NDArray[np.bool_], num_true: int) -> float:
    """Over COCO's 101 recalls, of predicted objects in the order of their confidence."""
    tp = np.cumsum(hit)
    precision = tp / np.arange(1, len(hit) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(tp / num_true, _RECALLS, side="left")
    return float(np.append(envelope, 0.0)[at].mean())


def _settled(ratio: float, matches: Sequence[ObjectMatch], empty: EmptyPolicy) -> float:
    num_true = sum(len(m.reference_ious) for m in matches)
    num_found = sum(len(m.predicted_ious) for m in matches)
    return float(
        settle_empty(
            ratio, truth_is_empty=num_true == 0, is_right=num_true == num_found == 0, empty=empty
        )
    )


def _joined(parts: Iterable[Sequence[float]]) -> NDArray[np.float64]:
    return np.array([value for part in parts for value in part], np.float64)
