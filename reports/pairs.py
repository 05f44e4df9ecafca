"""Scores of runs in pairs: what every section says of two networks, by the same arithmetic.

The unit is the run, a fold under one seed, and the interval that of the corrected resampled t: what
is said holds for networks that are trained again, not for new cases of these trained networks.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from reports.records import StudyRecords
from reports.scores import Metric, case_scores
from reports.statistics import corrected_resampled_t
from unetpp.metrics.overlap import EMPTY_POLICIES

NO_INTERVAL = (
    "No interval and no test: they need at least two runs that both have finished, and there are "
    "fewer."
)


def output_scores(study: StudyRecords, metric: Metric) -> pd.DataFrame:
    """Mean over the cases of each held-out fold, of every output of every arm.

    Returns:
        Frame [(arm, output), (seed, fold)]; NaN where the run is missing or no case has a score.
        The row of the judged output is that of `reports.scores.judged_scores`.
    """
    cases = study.cases
    scored = cases[["arm", "output", "seed", "fold"]].assign(
        score=case_scores(cases, metric, empty=study.empty)
    )
    keys = ["arm", "output", "seed", "fold"]
    means = scored.groupby(keys, observed=True)["score"].mean()
    frame = means.unstack(["seed", "fold"]).sort_index(axis="columns")  # noqa: PD010
    names = [(str(arm), str(output)) for arm, output in frame.index]
    frame.index = pd.MultiIndex.from_tuples(names, names=["arm", "output"])
    return frame


def row_of(scores: pd.DataFrame, key: object) -> pd.Series:
    """One row of a frame of scores by run, without the runs that have none; empty if it has no row."""
    if key not in scores.index:
        return pd.Series(dtype="float64")
    return scores.transpose()[key].dropna()


def judged_output(study: StudyRecords, arm: str) -> str | None:
    """The output by which the runs of an arm are judged, or None when it has no run."""
    outputs = study.runs.loc[study.runs["arm"] == arm, "primary_output"]
    return None if outputs.empty else str(outputs.iloc[0])


def mean_of(values: pd.Series, metric: str, *, test_train_ratio: float) -> dict[str, float]:
    """`<metric>_mean`, `_low` and `_high` over runs; limits are NaN with fewer than two runs."""
    result = corrected_resampled_t(values.tolist(), test_train_ratio=test_train_ratio)
    low, high = (math.nan, math.nan) if result is None else (result.low, result.high)
    return {
        f"{metric}_mean": float(values.mean()) if len(values) else math.nan,
        f"{metric}_low": low,
        f"{metric}_high": high,
    }


def paired(first: pd.Series, second: pd.Series, *, test_train_ratio: float) -> dict[str, float]:
    """`first` - `second` over the runs that both have.

    Returns:
        delta_dice (or of any other score), delta_low, delta_high, t, p, delta_runs; NaN where they
        are not defined, see `corrected_resampled_t`.
    """
    gaps = (first - second).dropna()
    result = corrected_resampled_t(gaps.tolist(), test_train_ratio=test_train_ratio)
    names = ("mean", "low", "high", "t", "p")
    values = {name: math.nan if result is None else getattr(result, name) for name in names}
    return {
        "delta_dice": float(gaps.mean()) if len(gaps) else math.nan,
        "delta_low": values["low"],
        "delta_high": values["high"],
        "t": values["t"],
        "p": values["p"],
        "delta_runs": len(gaps),
    }


def within(low: float, high: float) -> tuple[float, float]:
    """Limits of a mean score cut at 0 and 1, between which it lies; NaN stays NaN."""
    return float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))


def interval_words(study: StudyRecords) -> str:
    """What every interval of a score in these sections is, for notes and captions."""
    return (
        "95 % interval over the runs (fold x seed) by the corrected resampled t (Nadeau and Bengio "
        f"2003; n_test/n_train = {study.test_train_ratio:.3f}), of networks that are trained again"
    )


def run_words(study: StudyRecords) -> str:
    """How many runs an arm has: "5 runs (5 folds x 1 seed)"; "up to ..." where some are missing."""
    folds, seeds = study.num_folds, study.manifest.num_seeds
    total = folds * seeds
    most = "up to " if study.missing else ""
    return (
        f"{most}{total} run{'s' if total != 1 else ''} ({folds} fold{'s' if folds != 1 else ''} x "
        f"{seeds} seed{'s' if seeds != 1 else ''})"
    )


def empty_words(study: StudyRecords) -> str:
    """The rule for empty masks in one sentence."""
    return f"Empty masks: {EMPTY_POLICIES[study.empty]}."
