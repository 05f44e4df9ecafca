"""The numbers of the result table and of the table of heads, unrounded, and how they are rounded.

`reports.writers` prints these frames; `reports.verdict` says them in words.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from reports.records import StudyRecords
from reports.scores import (
    FORMULAS,
    count_empty,
    fold_scores,
    judged_scores,
    primary_cases,
    scored_folds,
)
from reports.statistics import corrected_resampled_t, holm
from unetpp.budget import count_parameters
from unetpp.grid import prune_to_head
from unetpp.spec import GridSpec

ALPHA = 0.05
NO_TEST = (
    "No interval and no test: they need at least two folds that both arms have finished, and "
    "there are fewer."
)


def result_rows(study: StudyRecords) -> pd.DataFrame:
    """One row an arm, in the promised order; raw numbers, NaN for what does not exist.

    Columns: arm, label, deep_supervision, primary_output, num_parameters, macs, num_folds;
    dice_mean, dice_sd, iou_mean, iou_sd (mean over the cases of a fold, then mean and sample
    standard deviation over folds); delta_dice, delta_low, delta_high, delta_folds, t, df, p
    (paired by fold against the baseline, Nadeau-Bengio); p_holm (over all arms but the
    baseline); train_hours (sum over folds).
    """
    dice, iou = judged_scores(study, "dice"), judged_scores(study, "iou")
    rows: list[dict[str, object]] = []
    for arm in study.arms:
        runs = study.runs[study.runs["arm"] == arm.name]
        outputs = runs["primary_output"].unique()
        rows.append(
            {
                "arm": arm.name,
                "label": arm.label,
                "deep_supervision": arm.deep_supervision,
                "primary_output": ", ".join(outputs),
                "num_parameters": arm.num_parameters,
                "macs": arm.macs,
                "num_folds": len(scored_folds(dice, arm.name)),
                **_moments("dice", scored_folds(dice, arm.name)),
                **_moments("iou", scored_folds(iou, arm.name)),
                **_comparison(study, dice, arm.name),
                "train_hours": runs["seconds"].sum() / 3600,
            }
        )
    frame = pd.DataFrame(rows)
    frame.insert(frame.columns.get_loc("p") + 1, "p_holm", holm(frame["p"].tolist()))  # pyright: ignore[reportArgumentType, reportOperatorIssue]
    return frame


def differences(study: StudyRecords, arm: str) -> pd.Series:
    """Dice of `arm` minus Dice of the baseline, one a fold that both have; the index is the fold."""
    return _differences(judged_scores(study, "dice"), arm, study.manifest.baseline)


def head_rows(study: StudyRecords) -> pd.DataFrame:
    """One row per output of every deep-supervised arm: L1..Ld, then the mean of all heads.

    Columns: arm, label, output, primary, num_parameters and macs of the network pruned to that
    head (NaN where unknown), num_folds, dice_mean, dice_sd, iou_mean, iou_sd.
    """
    rows: list[dict[str, object]] = []
    for arm in study.arms:
        cases = study.cases[study.cases["arm"] == arm.name]
        outputs = sorted(cases["output"].unique(), key=lambda name: (name == "mean", name))
        primary = set(study.runs.loc[study.runs["arm"] == arm.name, "primary_output"])
        for output in outputs if arm.deep_supervision else ():
            kept = cases[cases["output"] == output]
            dice, iou = (
                fold_scores(kept, "dice", empty=study.empty),
                fold_scores(kept, "iou", empty=study.empty),
            )
            rows.append(
                {
                    "arm": arm.name,
                    "label": arm.label,
                    "output": output,
                    "primary": output in primary,
                    **head_cost(study, arm.name, output),
                    "num_folds": len(scored_folds(dice, arm.name)),
                    **_moments("dice", scored_folds(dice, arm.name)),
                    **_moments("iou", scored_folds(iou, arm.name)),
                }
            )
    return pd.DataFrame(rows)


def head_cost(study: StudyRecords, arm_name: str, output: str) -> dict[str, float]:
    """`num_parameters` and `macs` of the network that yields `output` alone; NaN where unknown.

    From the timed network where there is one. Else parameters follow from the spec in closed
    form, for the plain encoder only.
    """
    arm, timed = study.arm(arm_name), study.latencies
    timed = timed[(timed["arm"] == arm_name) & (timed["output"] == output)]
    if len(timed):
        return {name: float(timed[name].iloc[0]) for name in ("num_parameters", "macs")}
    if output == "mean":
        return {"num_parameters": float(arm.num_parameters), "macs": float(arm.macs)}
    spec = GridSpec.from_json(arm.spec)
    known = spec.encoder.name == "plain"
    parameters = count_parameters(prune_to_head(spec, int(output[1:]))) if known else math.nan
    return {"num_parameters": float(parameters), "macs": math.nan}


def num_decimals(rows: pd.DataFrame) -> int:
    """3, or 4 where the intervals are so narrow that the third digit would hide them."""
    half = ((rows["delta_high"] - rows["delta_low"]) / 2).median()
    if math.isnan(half) or half <= 0:
        return 3
    return min(4, max(3, math.ceil(-math.log10(half))))


def tied(rows: pd.DataFrame) -> pd.Series:
    """Whether a test ran and did not tell the arm from the baseline (Holm p >= 0.05)."""
    return rows["p_holm"] >= ALPHA


def ranks(rows: pd.DataFrame, column: str) -> pd.Series:
    """1 best, 2 second, 0 others; equal numbers share a rank.

    All 0 with a single arm, and where the arms have different numbers of folds: such means are
    over different cases and do not rank.
    """
    none = pd.Series(0, index=rows.index)
    if len(rows) < 2 or len(set(rows["num_folds"])) > 1:
        return none
    place = rows[column].rank(method="dense", ascending=False)
    return place.where(place <= 2, 0).fillna(0).astype(int)


def caption(study: StudyRecords) -> list[str]:
    """The sentences below the table: definitions, what ± is, tests and their family, counts."""
    rows = result_rows(study)
    empty = count_empty(primary_cases(study), empty=study.empty)
    data = study.manifest.dataset
    fewest, most = empty.left_out
    left_out = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    lines = [
        (
            f"{FORMULAS['dice']} and {FORMULAS['iou']} per case{_per_class(study)}, "
            f"{data['size']}, scored in fp32."
        ),
        (
            f"A case whose reference and prediction are both empty has no score and is left out; an "
            f"empty reference with any prediction scores 0. {empty.num_cases} cases were scored, "
            f"{empty.num_empty} with an empty reference; {left_out} left out per arm."
        ),
        (
            f"Judged output: {_outputs(study)}. Dice and IoU: mean over the cases of a held-out fold, "
            f"then mean ± standard deviation over {_fold_counts(rows)} folds."
        ),
        *_test_lines(study, rows),
    ]
    if len(set(rows["num_folds"])) > 1:
        lines.append("The arms have different numbers of folds: no mean is marked as best.")
    return lines


def _test_lines(study: StudyRecords, rows: pd.DataFrame) -> list[str]:
    family = [study.titles[arm] for arm in rows.loc[rows["p"].notna(), "arm"]]
    base = study.titles[study.manifest.baseline]
    if rows["delta_low"].notna().sum() == 0 and not family:
        return [NO_TEST]
    return [
        (
            f"Delta: Dice minus that of {base}, paired by fold, with the 95 % interval of the "
            f"corrected resampled t (Nadeau and Bengio 2003; n_test/n_train = "
            f"{study.test_train_ratio:.3f}, the mean over folds)."
        ),
        (
            f"Holm p: two-sided p of that test, corrected over {len(family)} comparison"
            f"{'s' if len(family) != 1 else ''} of Dice with {base} ({', '.join(family)})."
        ),
    ]


def _outputs(study: StudyRecords) -> str:
    arms_of: dict[str, list[str]] = {}
    for arm, output in (
        study.runs[["arm", "primary_output"]].drop_duplicates().itertuples(index=False)
    ):
        arms_of.setdefault(str(output), []).append(study.titles[str(arm)])
    names = {"mean": "the mean of all heads"}
    if len(arms_of) == 1:
        output = next(iter(arms_of))
        return f"{names.get(output, output)} of every arm"
    return "; ".join(f"{names.get(o, o)} of {', '.join(arms)}" for o, arms in arms_of.items())


def _fold_counts(rows: pd.DataFrame) -> str:
    low, high = rows["num_folds"].min(), rows["num_folds"].max()
    return f"{high}" if low == high else f"{low} to {high}"


def _moments(metric: str, values: pd.Series) -> dict[str, object]:
    return {
        f"{metric}_mean": values.mean() if len(values) else np.nan,
        f"{metric}_sd": values.std(ddof=1) if len(values) > 1 else np.nan,
    }


def _differences(dice: pd.DataFrame, arm: str, baseline: str) -> pd.Series:
    return (scored_folds(dice, arm) - scored_folds(dice, baseline)).dropna()


def _comparison(study: StudyRecords, dice: pd.DataFrame, arm: str) -> dict[str, object]:
    nothing: dict[str, object] = dict.fromkeys(("delta_low", "delta_high"), math.nan)
    nothing |= {"delta_folds": 0, "t": math.nan, "df": 0, "p": math.nan}
    if arm == study.manifest.baseline:
        return {"delta_dice": math.nan, **nothing}
    values = _differences(dice, arm, study.manifest.baseline)
    result = corrected_resampled_t(values.tolist(), test_train_ratio=study.test_train_ratio)
    if result is None:
        mean = values.mean() if len(values) else math.nan
        return {"delta_dice": mean, **nothing, "delta_folds": len(values)}
    return {
        "delta_dice": result.mean,
        "delta_low": result.low,
        "delta_high": result.high,
        "delta_folds": len(values),
        "t": result.t,
        "df": result.df,
        "p": result.p,
    }


def _per_class(study: StudyRecords) -> str:
    """What several classes do to the unit that is scored."""
    names = study.manifest.dataset["classes"]
    return f" and class ({', '.join(names)}; each counts once)" if len(names) > 1 else ""
