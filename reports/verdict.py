"""The answer of a study in a few plain sentences, from the numbers and nothing else."""

from __future__ import annotations

import math

import pandas as pd

from reports.records import StudyRecords, most_nested, same_grid
from reports.scores import case_scores, fold_scores, primary_cases
from reports.statistics import ResampledT, corrected_resampled_t
from reports.tables import ALPHA, differences, num_decimals, result_rows


def verdict(study: StudyRecords) -> list[str]:
    """Two to five sentences: the most nested arm against the baseline, its price, its control, all.

    "Significant" is said only of a comparison in the Holm family. An interval that holds zero is
    said to hold zero.
    """
    rows = result_rows(study).set_index("arm")
    nested = most_nested(study)
    sentences: list[str] = []
    if nested is not None and nested.name != study.manifest.baseline:
        sentences.append(_against_baseline(study, rows, nested.name))
        sentences += _price(study, rows, nested.name)
        sentences += _controls(study, rows, nested.name)
    sentences += _family(study, rows)
    return sentences or ["There is nothing to compare: the study has one finished arm."]


def _against_baseline(study: StudyRecords, rows: pd.DataFrame, arm: str) -> str:
    row, base = rows.loc[arm], study.titles[study.manifest.baseline]
    digits = num_decimals(rows)
    title = study.titles[arm]
    if math.isnan(row["delta_dice"]):
        return f"{title} and {base} share no finished fold, so they cannot be compared yet."
    start = (
        f"{title} is {_above(row['delta_dice'], digits)} {base} in Dice "
        f"({row['dice_mean']:.{digits}f} against {rows.loc[study.manifest.baseline, 'dice_mean']:.{digits}f})"
    )
    if math.isnan(row["delta_low"]):
        return f"{start}; {_no_interval(int(row['delta_folds']))}."
    interval = f"95 % interval {row['delta_low']:+.{digits}f} to {row['delta_high']:+.{digits}f}"
    folds = int(row["delta_folds"])
    if row["delta_low"] <= 0 <= row["delta_high"]:
        return f"{start}, {interval}: with {folds} folds this cannot be told from zero."
    if row["p_holm"] < ALPHA:
        return (
            f"{start}, {interval}: the interval leaves out zero, and the difference is "
            f"significant after Holm's correction ({_p(row['p_holm'])})."
        )
    return (
        f"{start}, {interval}: the interval of this one comparison leaves out zero, but after "
        f"Holm's correction the difference is not significant ({_p(row['p_holm'])})."
    )


def _price(study: StudyRecords, rows: pd.DataFrame, arm: str) -> list[str]:
    base = study.manifest.baseline
    values = differences(study, arm)
    if not len(values):
        return []
    cases = primary_cases(study)
    scored = cases.assign(dice=case_scores(cases, "dice"))
    table = scored.pivot_table(index=["case", "fold"], columns="arm", values="dice")
    paired = table[[arm, base]].dropna()
    lost = int((paired[arm] < paired[base]).sum())
    return [
        f"It takes {rows.loc[arm, 'num_parameters'] / rows.loc[base, 'num_parameters']:.2f} times "
        f"the parameters and {rows.loc[arm, 'macs'] / rows.loc[base, 'macs']:.2f} times the "
        f"multiply-accumulates of {study.titles[base]}, and does worse than it in "
        f"{int((values < 0).sum())} of {len(values)} folds and on {lost} of {len(paired)} cases."
    ]


def _controls(study: StudyRecords, rows: pd.DataFrame, arm: str) -> list[str]:
    """The most nested arm against plain grids of other widths: outside the Holm family."""
    dice = fold_scores(primary_cases(study), "dice")
    sentences: list[str] = []
    for control in same_grid(study):
        if control.name == study.manifest.baseline or not {control.name, arm} <= set(dice.index):
            continue
        values = (dice.loc[arm] - dice.loc[control.name]).dropna()
        result = corrected_resampled_t(values.tolist(), test_train_ratio=study.test_train_ratio)
        if result is None:
            continue
        share = control.num_parameters / study.arm(arm).num_parameters
        sentences.append(
            f"Against {study.titles[control.name]} (the grid of {study.titles[study.manifest.baseline]}"
            f" with {share:.2f} times its parameters) {study.titles[arm]} is "
            f"{_interval(result, num_decimals(rows))}; this comparison is outside the Holm family."
        )
    return sentences


def _interval(result: ResampledT, digits: int) -> str:
    text = f"{_above(result.mean, digits)} in Dice"
    if math.isnan(result.low):
        return f"{text}, the same in every fold, so that no interval can be given"
    zero = "holds" if result.low <= 0 <= result.high else "leaves out"
    return f"{text}, 95 % interval {result.low:+.{digits}f} to {result.high:+.{digits}f}, which {zero} zero"


def _family(study: StudyRecords, rows: pd.DataFrame) -> list[str]:
    tested = rows[rows["p_holm"].notna()]
    base = study.titles[study.manifest.baseline]
    if len(tested) == 0:
        return []
    found = tested[tested["p_holm"] < ALPHA]
    better = [study.titles[str(arm)] for arm in found.index[found["delta_dice"] > 0]]
    worse = [study.titles[str(arm)] for arm in found.index[found["delta_dice"] < 0]]
    below = [study.titles[str(arm)] for arm in tested.index[tested["delta_dice"] < 0]]
    many = f"Of {len(tested)} comparisons" if len(tested) > 1 else "The one comparison"
    if not len(found):
        smallest = _p(tested["p_holm"].min())
        none = "none is" if len(tested) > 1 else "is not"
        text = (
            f"{many} with {base}, {none} significant after Holm's correction (smallest {smallest})"
        )
    else:
        parts = [
            f"{', '.join(better)} above" if better else "",
            f"{', '.join(worse)} below" if worse else "",
        ]
        said = " and ".join(part for part in parts if part)
        text = f"{many} with {base}, {len(found)} {'are' if len(found) > 1 else 'is'} significant after Holm's correction: {said}"
    if below:
        text += (
            f"; in the mean, {', '.join(below)} {'lie' if len(below) > 1 else 'lies'} below {base}"
        )
    return [text + "."]


def _above(difference: float, digits: int) -> str:
    if round(abs(difference), digits) == 0:
        return "within rounding of"
    return f"{abs(difference):.{digits}f} {'above' if difference > 0 else 'below'}"


def _no_interval(num_folds: int) -> str:
    if num_folds < 2:
        return "one fold gives no interval and no test"
    return "the difference is the same in every fold, so that no interval can be given"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
