"""Five scores of every class and arm: as means over cases, and pooled over all pixels."""

from __future__ import annotations

import numpy as np
import pandas as pd

from reports.case_table import case_places
from reports.comparison import SEED
from reports.records import StudyRecords
from reports.scores import Metric, case_scores, primary_cases
from reports.statistics.cases import percentile, pooled_sums, resample

FIVE: tuple[Metric, ...] = ("dice", "iou", "precision", "recall", "specificity")


def class_rows(study: StudyRecords) -> pd.DataFrame:
    """One row per class and arm that has scores, classes in order, arms as promised.

    Columns: label, arm, num_runs, num_scored (case and run with a Dice), num_empty (case and run
    with an empty reference); for each of `FIVE` its mean and sd (mean over the cases of a fold, then
    mean and sample standard deviation over runs); pooled_dice, pooled_iou and their low and high
    (of the counts summed over all cases and seeds, percentile interval of a bootstrap over groups,
    NaN with fewer than six).
    """
    cases = primary_cases(study)
    scored = cases[["label", "arm", "seed", "fold"]].assign(
        **{name: case_scores(cases, name, empty=study.empty) for name in FIVE}
    )
    by_run = scored.groupby(["label", "arm", "seed", "fold"], observed=True)[list(FIVE)].mean()
    by_arm = by_run.groupby(["label", "arm"], observed=True)
    means, deviations = by_arm.mean().add_suffix("_mean"), by_arm.std(ddof=1).add_suffix("_sd")
    counts = scored.assign(num_empty=(cases["tp"] + cases["fn"]) == 0).groupby(
        ["label", "arm"], observed=True
    )
    frame = pd.concat(
        [
            by_arm["dice"].count().rename("num_runs"),
            counts["dice"].count().rename("num_scored"),
            counts["num_empty"].sum(),
            means,
            deviations,
        ],
        axis=1,
    ).reset_index()
    joined = frame.merge(_pooled(study, cases), on=["label", "arm"], how="left")
    order = {arm.name: place for place, arm in enumerate(study.arms)}
    joined["arm"] = joined["arm"].astype(object)
    return joined.sort_values(
        ["label", "arm"], key=lambda c: c.map(order) if c.name == "arm" else c
    ).reset_index(drop=True)


def _pooled(study: StudyRecords, cases: pd.DataFrame) -> pd.DataFrame:
    """Pooled Dice and IoU of every class and arm, with their intervals."""
    rows: list[dict[str, object]] = []
    for label, kept in cases.groupby("label", sort=True):
        places = case_places(study, kept)
        above, wrong = places.sums(2 * kept["tp"]), places.sums(kept["fp"] + kept["fn"])
        drawn = resample(pooled_sums(above, above + wrong, places.groups), seed=SEED)
        for arm, dice in zip(places.arms, percentile(drawn), strict=True):
            values = np.array([dice.value, dice.low, dice.high])
            # Rising in Dice, so that the limits of the one are those of the other.
            iou = values / (2 - values)
            row: dict[str, object] = {"label": label, "arm": arm}
            for name, three in (("pooled_dice", values), ("pooled_iou", iou)):
                row |= dict(zip((name, f"{name}_low", f"{name}_high"), three, strict=True))
            rows.append(row)
    return pd.DataFrame(rows)
