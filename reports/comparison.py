"""The arms of a study against its baseline, in numbers: trained again, and on new cases.

Two questions, never mixed. `result_rows` asks whether an architecture would do better if it were
trained again; its unit is the run, one fold under one seed. `new_case_rows` asks how these very
networks would do on new cases; its unit is the group of cases that no fold divides.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reports.case_table import CaseTable, case_table, group_means
from reports.records import StudyRecords
from reports.scores import judged_scores, primary_cases, scored_folds
from reports.statistics import corrected_resampled_t, holm
from reports.statistics.cases import bca, mean_sums, resample
from reports.statistics.effects import paired_d, rank_biserial
from reports.statistics.retraining import correlated_t
from reports.statistics.sign_flip import sign_flip

ALPHA = 0.05
# Half-width of the region of practical equivalence, in Dice.
ROPE = 0.01
# Of every bootstrap and permutation in a report: the same records give the same page.
SEED = 0
# Differences below this are rounding.
_SAME = 1e-12


def result_rows(study: StudyRecords) -> pd.DataFrame:
    """One row an arm, in the promised order; raw numbers, NaN for what does not exist.

    Columns: arm, label, deep_supervision, primary_output, num_parameters, macs, training_memory
    (bytes, 0 where unknown), num_runs; dice_mean, dice_sd, iou_mean, iou_sd (mean over the cases of
    a fold, then mean and sample standard deviation over runs); delta_dice, delta_low, delta_high,
    delta_runs, t, df, p (paired by run against the baseline, Nadeau-Bengio); p_holm (over all arms
    but the baseline); p_worse, p_equal, p_better (Bayesian correlated t, practical equivalence
    within `ROPE`); p_best (Holm p against the arm with the best mean, see `against_best`);
    train_hours (sum over runs).
    """
    dice, iou = judged_scores(study, "dice"), judged_scores(study, "iou")
    rows: list[dict[str, object]] = []
    for arm in study.arms:
        runs = study.runs[study.runs["arm"] == arm.name]
        scores = scored_folds(dice, arm.name)
        rows.append(
            {
                "arm": arm.name,
                "label": arm.label,
                "deep_supervision": arm.deep_supervision,
                "primary_output": ", ".join(runs["primary_output"].unique()),
                "num_parameters": arm.num_parameters,
                "macs": arm.macs,
                "training_memory": arm.training_memory,
                "num_runs": len(scores),
                **moments("dice", scores),
                **moments("iou", scored_folds(iou, arm.name)),
                **_comparison(study, dice, arm.name),
                "train_hours": runs["seconds"].sum() / 3600,
            }
        )
    frame = pd.DataFrame(rows)
    place = frame.columns.tolist().index("p") + 1
    frame.insert(place, "p_holm", holm(frame["p"].tolist()))
    frame.insert(len(frame.columns) - 1, "p_best", against_best(study, frame, dice))
    return frame


def moments(metric: str, values: pd.Series) -> dict[str, object]:
    """`<metric>_mean` and `<metric>_sd` over runs; NaN where there are too few."""
    return {
        f"{metric}_mean": values.mean() if len(values) else math.nan,
        f"{metric}_sd": values.std(ddof=1) if len(values) > 1 else math.nan,
    }


def differences(study: StudyRecords, arm: str) -> pd.Series:
    """Dice of `arm` less that of the baseline, by (seed, fold), over the runs that both have."""
    return run_differences(judged_scores(study, "dice"), arm, study.manifest.baseline)


def run_differences(scores: pd.DataFrame, arm: str, other: str) -> pd.Series:
    """Scores of one arm less those of another, by (seed, fold), from `fold_scores`."""
    return (scored_folds(scores, arm) - scored_folds(scores, other)).dropna()


def _comparison(study: StudyRecords, dice: pd.DataFrame, arm: str) -> dict[str, object]:
    nan = math.nan
    found: dict[str, object] = {"delta_dice": nan, "delta_low": nan, "delta_high": nan}
    found |= {"delta_runs": 0, "t": nan, "df": 0, "p": nan}
    found |= {"p_worse": nan, "p_equal": nan, "p_better": nan}
    if arm == study.manifest.baseline:
        return found
    values, ratio = run_differences(dice, arm, study.manifest.baseline), study.test_train_ratio
    found |= {"delta_runs": len(values), "delta_dice": values.mean() if len(values) else nan}
    result = corrected_resampled_t(values.tolist(), test_train_ratio=ratio)
    # For k equal folds the ratio is 1/(k-1) and the correlation 1/k.
    posterior = correlated_t(values.tolist(), rho=ratio / (1 + ratio), rope=ROPE)
    if result is not None and posterior is not None:
        found |= {"delta_low": result.low, "delta_high": result.high}
        found |= {"t": result.t, "df": result.df, "p": result.p}
        found |= {"p_worse": posterior.left, "p_equal": posterior.rope}
        found["p_better"] = posterior.right
    return found


def against_best(study: StudyRecords, rows: pd.DataFrame, dice: pd.DataFrame) -> list[float]:
    """Holm p of every arm against the arm with the best mean Dice; NaN for that one.

    All NaN where the means are over different runs and do not rank, see `comparable`. The best
    was picked by the same scores: its lead is a little too large, and too few arms come out as not
    told apart from it, rather than too many.
    """
    nothing = [math.nan] * len(rows)
    if not comparable(rows) or rows["dice_mean"].isna().all():
        return nothing
    best = best_arm(rows)
    found: list[float] = []
    for arm in rows["arm"]:
        values = run_differences(dice, str(arm), best)
        ratio = study.test_train_ratio
        result = corrected_resampled_t(values.tolist(), test_train_ratio=ratio)
        found.append(math.nan if arm == best or result is None else result.p)
    return holm(found)


def best_arm(rows: pd.DataFrame) -> str:
    """The arm with the best mean Dice, the first of equal ones."""
    return str(rows["arm"].tolist()[int(np.nanargmax(rows["dice_mean"].to_numpy(dtype=float)))])


def comparable(rows: pd.DataFrame) -> bool:
    """Whether the means of several arms are over the same runs, so that they rank."""
    return len(rows) > 1 and len(set(rows["num_runs"])) == 1


def new_case_rows(study: StudyRecords, table: CaseTable | None = None) -> pd.DataFrame:
    """One row an arm but the baseline: these trained networks on new cases.

    Scores are averaged over seeds first. Columns: arm, num_cases (with a score of both), num_groups;
    delta_dice, delta_low, delta_high (mean over cases; BCa interval of a bootstrap over groups, NaN
    with fewer than six); p, p_floor, exact (sign flips of the mean over groups of the mean
    difference in each); p_holm (over the arms whose test can reach `ALPHA`); d_z and rank_biserial
    (over groups); num_worse, share_worse (cases on which the arm does worse).

    Args:
        study: whose records.
        table: `case_table(study)`, where it is at hand.
    """
    table = case_table(study) if table is None else table
    base = study.manifest.baseline
    others = [k for k, arm in enumerate(table.places.arms) if arm != base]
    gains, groups = table.gains(base)[:, others], table.places.groups
    kept = ~np.isnan(gains).all(axis=1)
    if not kept.any():
        return pd.DataFrame()
    gains, groups = gains[kept], groups[kept]
    intervals = bca(resample(mean_sums(gains, groups), seed=SEED))
    rows = [
        {
            "arm": table.places.arms[k],
            "num_cases": int(np.count_nonzero(~np.isnan(values))),
            "num_groups": interval.n,
            "delta_dice": interval.value,
            "delta_low": interval.low,
            "delta_high": interval.high,
            **_flipped(values, groups),
        }
        for k, values, interval in zip(others, gains.T, intervals, strict=True)
    ]
    frame = pd.DataFrame(rows)
    # A p that cannot fall below alpha is no test, and no member of a family.
    tested = frame["p"].where(frame["p_floor"] < ALPHA)
    frame.insert(frame.columns.tolist().index("p_floor"), "p_holm", holm(tested.tolist()))
    return frame


def _flipped(values: NDArray[np.float64], groups: NDArray[np.object_]) -> dict[str, object]:
    known = ~np.isnan(values)
    values, groups = values[known], groups[known]
    test, means = sign_flip(values, groups, seed=SEED), group_means(values, groups)
    worse = int(np.count_nonzero(values < -_SAME))
    return {
        "p": test.p,
        "p_floor": test.floor,
        "exact": test.exact,
        "d_z": paired_d(means, np.zeros_like(means)).d_z,
        "rank_biserial": rank_biserial(means),
        "num_worse": worse,
        "share_worse": worse / len(values) if len(values) else math.nan,
    }


def empty_reference_rows(study: StudyRecords) -> pd.DataFrame:
    """One row an arm: what it predicts where there is nothing; empty without empty references.

    Columns: arm, num_empty (case, class and run with an empty reference), false_positive_rate (of
    these, with any predicted pixel), mean_false_pixels.
    """
    cases = primary_cases(study)
    empty = cases[(cases["tp"] + cases["fn"]) == 0]
    if empty.empty:
        return pd.DataFrame()
    found = empty["fp"].gt(0).groupby(empty["arm"], observed=True).agg(["size", "mean"])
    pixels = empty.groupby("arm", observed=True)["fp"].mean()
    names = [arm.name for arm in study.arms]
    frame = found.assign(pixels=pixels).set_axis(found.index.astype(object)).reindex(names)
    frame.columns = pd.Index(["num_empty", "false_positive_rate", "mean_false_pixels"])
    frame["num_empty"] = frame["num_empty"].fillna(0).astype(int)
    return frame.rename_axis("arm").reset_index()
