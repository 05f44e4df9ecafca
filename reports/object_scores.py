"""Scores of objects, as connected components, from what was recorded of their matching."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reports.records import StudyRecords
from unetpp.metrics.objects import THRESHOLDS, ObjectMatch, average_precision
from unetpp.metrics.overlap import EmptyPolicy, settle_empty


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ObjectCounts:
    """What the objects of each row of `study.objects` add to a score.

    Attributes:
        dsb: [rows] score of the Data Science Bowl 2018; NaN under the rule for empty masks.
        hits: [rows] objects whose IoU with their partner is above 0.5.
        overlap: [rows] sum of the IoU of these.
        num_objects: [rows] true and predicted objects together.
    """

    dsb: NDArray[np.float64]
    hits: NDArray[np.float64]
    overlap: NDArray[np.float64]
    num_objects: NDArray[np.float64]


def object_counts(rows: pd.DataFrame, *, empty: EmptyPolicy) -> ObjectCounts:
    """Counts of all rows at once; the scores are those of `unetpp.metrics.objects`.

    Args:
        rows: of `StudyRecords.objects`.
        empty: the rule for empty masks, as in `dsb_score`.
    """
    num_true = _lengths(rows["reference_ious"])
    num = num_true + _lengths(rows["predicted_ious"])
    ious = _flat(rows["reference_ious"])
    row = np.repeat(np.arange(len(rows)), num_true)

    def hits_above(threshold: float) -> NDArray[np.float64]:
        return np.bincount(row[ious > threshold], minlength=len(rows)).astype(np.float64)

    ratio = np.zeros(len(rows))
    with np.errstate(invalid="ignore"):
        for threshold in THRESHOLDS:
            found = hits_above(threshold)
            ratio += found / (num - found)
    good = ious > 0.5
    return ObjectCounts(
        dsb=settle_empty(
            ratio / len(THRESHOLDS), truth_is_empty=num_true == 0, is_right=num == 0, empty=empty
        ),
        hits=hits_above(0.5),
        overlap=np.bincount(row[good], ious[good], len(rows)).astype(np.float64),
        num_objects=num.astype(np.float64),
    )


def precision_rows(study: StudyRecords, rows: pd.DataFrame) -> pd.DataFrame:
    """Average precision of every run: the images of its held-out fold are one data set.

    Args:
        study: whose records.
        rows: of `StudyRecords.objects`, of one class.

    Returns:
        Frame with arm, seed, fold, ap, ap50; NaN where no object has a confidence or none is true.
    """
    found: list[dict[str, object]] = []
    # In one order whatever the order of the rows: equal confidences keep the order of the images.
    ordered = rows.sort_values("case", kind="stable")
    runs = ordered.groupby(["arm", "seed", "fold"], observed=True, sort=False)
    for (arm, seed, fold), kept in runs:  # pyright: ignore[reportGeneralTypeIssues]
        # Average precision pools the objects of all images: they may as well be of one.
        columns = {name: tuple(_flat(kept[name]).tolist()) for name in ObjectMatch.__slots__}
        match = ObjectMatch(**columns)
        found.append(
            {
                "arm": str(arm),
                "seed": seed,
                "fold": fold,
                "ap": average_precision([match]),
                "ap50": average_precision([match], (0.5,)),
            }
        )
    order = {arm.name: place for place, arm in enumerate(study.arms)}
    frame = pd.DataFrame(found)
    return frame.sort_values(
        ["arm", "seed", "fold"], key=lambda c: c.map(order) if c.name == "arm" else c
    ).reset_index(drop=True)


def _lengths(lists: pd.Series) -> NDArray[np.intp]:
    return np.fromiter(map(len, lists), np.intp, len(lists))


def _flat(lists: pd.Series) -> NDArray[np.float64]:
    return np.fromiter(chain.from_iterable(lists), np.float64)
