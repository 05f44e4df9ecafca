"""Distances between boundaries, case by case, with the worst value where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reports.records import StudyRecords
from unetpp.metrics.surface import nsd

DISTANCES = ("hd95", "assd")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BoundaryScores:
    """What may enter a mean, one value a row of `study.surfaces`.

    Attributes:
        scores: hd95, assd (in the unit of the rows) and nsd -> [rows]; NaN where both masks are
            empty.
        imputed: [rows] whether one mask alone is empty: distances are then the diagonal, NSD is 0.
        both_empty: [rows] whether both are.
    """

    scores: Mapping[str, NDArray[np.float64]]
    imputed: NDArray[np.bool_]
    both_empty: NDArray[np.bool_]


def boundary_scores(rows: pd.DataFrame) -> BoundaryScores:
    """Scores of rows of `StudyRecords.surfaces`; the rule is that of `unetpp.metrics.surface.impute`.

    Without it a case with a missed object would drop out of the mean, which would then improve as
    more objects are missed.
    """
    predicted, truth = (rows[name].to_numpy() == 0 for name in ("size_predicted", "size_truth"))
    imputed, both = predicted ^ truth, predicted & truth
    diagonal = rows["diagonal"].to_numpy(dtype=float)
    values = {
        name: np.where(imputed, diagonal, rows[name].to_numpy(dtype=float)) for name in DISTANCES
    }
    counts = (
        rows[name] for name in ("near_predicted", "near_truth", "size_predicted", "size_truth")
    )
    return BoundaryScores(scores={**values, "nsd": nsd(*counts)}, imputed=imputed, both_empty=both)


def num_imputed(study: StudyRecords) -> int:
    """Rows of all arms and runs whose distances are the diagonal."""
    rows = study.surfaces
    return 0 if rows.empty else int(boundary_scores(rows).imputed.sum())
