"""What may be said of scores, and no more: pure functions on numbers, without records or tables.

Two questions are kept apart. `retraining` asks whether an architecture would win again if it were
trained again: its unit is the fold (and the seed). `cases`, `sign_flip` and `signed_rank` ask how
these trained networks would do on new cases: their unit is the group, such as a patient.
"""

from __future__ import annotations

from reports.statistics.corrections import holm
from reports.statistics.fold_means import (
    Bootstrapped,
    CaseScores,
    bootstrap_gap,
    bootstrap_mean,
)
from reports.statistics.intervals import FEWEST_GROUPS
from reports.statistics.retraining import ResampledT, corrected_resampled_t

__all__ = [
    "FEWEST_GROUPS",
    "Bootstrapped",
    "CaseScores",
    "ResampledT",
    "bootstrap_gap",
    "bootstrap_mean",
    "corrected_resampled_t",
    "holm",
]
