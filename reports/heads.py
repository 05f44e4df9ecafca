"""What every head of the deep-supervised arms yields, and what the network pruned to it costs."""

from __future__ import annotations

import pandas as pd

from reports.comparison import moments
from reports.price import counted_cost
from reports.records import StudyRecords
from reports.scores import fold_scores, output_cases, scored_folds
from unetpp.spec import GridSpec


def head_rows(study: StudyRecords) -> pd.DataFrame:
    """One row per output of every deep-supervised arm: L1..Ld, then the mean of all heads.

    Columns: arm, label, output, primary, num_parameters and macs of the network pruned to that
    head (NaN where unknown), num_runs, dice_mean, dice_sd, iou_mean, iou_sd (over runs).
    """
    rows: list[dict[str, object]] = []
    for arm in study.arms:
        if not arm.deep_supervision:
            continue
        names = study.cases.loc[study.cases["arm"] == arm.name, "output"].unique()
        outputs = sorted(map(str, names), key=lambda name: (name == "mean", name))
        primary = set(study.runs.loc[study.runs["arm"] == arm.name, "primary_output"])
        for output in outputs:
            kept = output_cases(study, arm.name, output)
            dice = scored_folds(fold_scores(kept, "dice", empty=study.empty), arm.name)
            iou = scored_folds(fold_scores(kept, "iou", empty=study.empty), arm.name)
            rows.append(
                {
                    "arm": arm.name,
                    "label": arm.label,
                    "output": output,
                    "primary": output in primary,
                    **head_cost(study, arm.name, output),
                    "num_runs": len(dice),
                    **moments("dice", dice),
                    **moments("iou", iou),
                }
            )
    return pd.DataFrame(rows)


def head_cost(study: StudyRecords, arm_name: str, output: str) -> dict[str, float]:
    """`num_parameters` and `macs` of the network that yields `output` alone; NaN where unknown.

    From the timed network where there is one, else in closed form (the plain encoder only).
    """
    arm, timed = study.arm(arm_name), study.latencies
    timed = timed[(timed["arm"] == arm_name) & (timed["output"] == output)]
    if len(timed):
        return {name: float(timed[name].iloc[0]) for name in ("num_parameters", "macs")}
    if output == "mean":
        return {"num_parameters": float(arm.num_parameters), "macs": float(arm.macs)}
    return counted_cost(arm, GridSpec.from_json(arm.spec), output)
