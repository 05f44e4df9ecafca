"""Every way of joining levels on every encoder: Dice, and its difference within an encoder."""

from __future__ import annotations

import pandas as pd

from reports.pairs import mean_of, paired
from reports.records import StudyRecords
from reports.scores import judged_scores, scored_folds
from reports.statistics import holm
from unetpp.records import ArmEntry

_FACTORS = ("encoder", "skips")


def crossed_arms(study: StudyRecords) -> list[ArmEntry]:
    """Arms that say which encoder and which skips they have, in their promised order."""
    return [arm for arm in study.arms if all(arm.levels.get(factor) for factor in _FACTORS)]


def crossing_rows(study: StudyRecords) -> pd.DataFrame:
    """One row an encoder and way of skipping, encoders in their promised order.

    Columns: encoder, skips, arm, is_reference (whether its skips are those of the study's
    baseline), deep_supervision, num_parameters, macs, num_runs; dice_mean, dice_low, dice_high,
    iou_mean, iou_low, iou_high; delta_dice (minus the reference on the same encoder, paired by
    run; NaN for the reference itself), delta_low, delta_high, t, p, delta_runs, p_holm over all
    rows. Empty unless the study crosses encoders with skips.
    """
    arms = crossed_arms(study)
    if study.baseline not in arms:
        return pd.DataFrame()
    dice, iou = judged_scores(study, "dice"), judged_scores(study, "iou")
    own = study.baseline.levels["skips"]
    references = {arm.levels["encoder"]: arm for arm in arms if arm.levels["skips"] == own}
    ratio = study.test_train_ratio
    rows: list[dict[str, object]] = []
    for arm in arms:
        scores, reference = scored_folds(dice, arm.name), references.get(arm.levels["encoder"])
        rival = pd.Series(dtype="float64")
        if reference is not None and reference is not arm:
            rival = scored_folds(dice, reference.name)
        rows.append(
            {
                **{factor: arm.levels[factor] for factor in _FACTORS},
                "arm": arm.name,
                "is_reference": reference is arm,
                "deep_supervision": arm.deep_supervision,
                "num_parameters": arm.num_parameters,
                "macs": arm.macs,
                "num_runs": len(scores),
                **mean_of(scores, "dice", test_train_ratio=ratio),
                **mean_of(scored_folds(iou, arm.name), "iou", test_train_ratio=ratio),
                **paired(scores, rival.reindex(scores.index), test_train_ratio=ratio),
            }
        )
    frame = pd.DataFrame(rows)
    return frame.assign(p_holm=holm(frame["p"].tolist()))


def skip_titles(study: StudyRecords) -> dict[str, str]:
    """Skips -> how the arm that has them on the baseline's encoder is called."""
    own = study.baseline.levels["encoder"]
    return {
        arm.levels["skips"]: study.titles[arm.name]
        for arm in crossed_arms(study)
        if arm.levels["encoder"] == own
    }
