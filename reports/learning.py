"""Curves of learning over runs, and whether they still move where the training ended."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from reports.pairs import mean_of
from reports.records import StudyRecords
from reports.statistics import corrected_resampled_t, holm

QUANTITIES = ("train_loss", "held_out_loss", "held_out_dice")
_RUN = ["arm", "seed", "fold"]


def curve_rows(study: StudyRecords) -> pd.DataFrame:
    """One row per (arm, quantity, epoch) that was looked at, arms in their promised order.

    Columns: arm, quantity, epoch; mean over the runs (fold x seed), low and high (95 % interval of
    the mean by the corrected resampled t, NaN with one run), least and most (range over the runs),
    num_runs. Epochs at which nothing was computed have no row. Empty without curves.
    """
    if study.curves.empty:
        return pd.DataFrame()
    long = study.curves.melt(
        id_vars=[*_RUN, "epoch"], value_vars=list(QUANTITIES), var_name="quantity"
    ).dropna(subset=["value"])
    rows: list[dict[str, object]] = []
    for (arm, quantity, epoch), values in long.groupby(["arm", "quantity", "epoch"], observed=True)[
        "value"
    ]:
        limits = mean_of(values, "value", test_train_ratio=study.test_train_ratio)
        rows.append(
            {
                "arm": str(arm),
                "quantity": str(quantity),
                "epoch": int(str(epoch)),
                "mean": limits["value_mean"],
                "low": limits["value_low"],
                "high": limits["value_high"],
                "least": values.min(),
                "most": values.max(),
                "num_runs": len(values),
            }
        )
    frame = pd.DataFrame(rows)
    places = {arm.name: place for place, arm in enumerate(study.arms)}
    order = frame["arm"].map(places)
    return (
        frame.assign(order=order)
        .sort_values(["order", "quantity", "epoch"], ignore_index=True)
        .drop(columns="order")
    )


def ending_rows(study: StudyRecords) -> pd.DataFrame:
    """One row an arm: what its held-out Dice (pooled over pixels) does at the end of the training.

    Columns: arm, num_runs, first_epoch, last_epoch (of the last quarter); dice_mean, dice_low,
    dice_high at the last epoch; change (least-squares slope over the last quarter, times its
    length, mean over runs), change_low, change_high, p, p_holm over the arms; sd_folds (of the fold
    means over seeds), sd_seeds (within a fold, pooled over folds; NaN with one seed), both at the
    last epoch. The change is NaN where the last quarter was looked at fewer than twice.
    """
    scored = study.curves.dropna(subset=["held_out_dice"]) if len(study.curves) else study.curves
    if scored.empty:
        return pd.DataFrame()
    last = int(scored["epoch"].max())
    first = last - math.ceil((last - int(study.curves["epoch"].min()) + 1) / 4) + 1
    rows = [
        _ending(study, arm.name, own, first, last)
        for arm in study.arms
        if len(own := scored[scored["arm"] == arm.name])
    ]
    frame = pd.DataFrame(rows)
    return frame.assign(p_holm=holm(frame["p"].tolist()))


def _ending(
    study: StudyRecords, arm: str, scored: pd.DataFrame, first: int, last: int
) -> dict[str, object]:
    at_end = scored[scored["epoch"] == last]
    late = scored[scored["epoch"] >= first]
    changes = [
        float(np.polyfit(run["epoch"], run["held_out_dice"], 1)[0]) * (last - first)
        for _, run in late.groupby(["seed", "fold"])
        if len(run) > 1
    ]
    result = corrected_resampled_t(changes, test_train_ratio=study.test_train_ratio)
    return {
        "arm": arm,
        "num_runs": len(at_end),
        "first_epoch": first,
        "last_epoch": last,
        **mean_of(at_end["held_out_dice"], "dice", test_train_ratio=study.test_train_ratio),
        "change": float(np.mean(changes)) if changes else math.nan,
        "change_low": math.nan if result is None else result.low,
        "change_high": math.nan if result is None else result.high,
        "p": math.nan if result is None else result.p,
        **_spreads(at_end),
    }


def _spreads(at_end: pd.DataFrame) -> dict[str, float]:
    """Standard deviations between folds, and between the seeds of one fold."""
    by_fold = at_end.groupby("fold")["held_out_dice"]
    several = by_fold.count() > 1
    within = by_fold.var(ddof=1)[several]
    weights = (by_fold.count() - 1)[several]
    pooled = float((within * weights).sum() / weights.sum()) if several.any() else math.nan
    means = by_fold.mean()
    return {
        "sd_folds": float(means.std(ddof=1)) if len(means) > 1 else math.nan,
        "sd_seeds": math.sqrt(pooled),
    }
