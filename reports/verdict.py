"""The answer of a study in a few plain sentences, from the numbers and nothing else."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

from reports.depth import depth_rows
from reports.depth_texts import depth_verdict
from reports.records import StudyRecords, most_nested, same_grid
from reports.scores import case_scores, judged_scores, primary_cases, scored_folds
from reports.statistics import ResampledT, corrected_resampled_t
from reports.tables import ALPHA, differences, num_decimals, result_rows

_Row = dict[Hashable, Any]


def verdict(study: StudyRecords) -> list[str]:
    """A few sentences: the most nested arm against the baseline, its price, its control, all arms.

    Where the arms are depths, those that are enough come first.

    "Significant" is said only of a comparison in the Holm family. An interval that holds zero is
    said to hold zero.
    """
    frame = result_rows(study)
    digits = num_decimals(frame)
    rows: dict[str, _Row] = {row["arm"]: row for row in frame.to_dict("records")}
    nested = most_nested(study)
    depths = depth_rows([(str(study.manifest.dataset["name"]), study)])
    sentences: list[str] = depth_verdict(depths) if len(depths) else []
    if nested is not None:
        sentences.append(_against_baseline(study, rows, nested.name, digits))
        sentences += _price(study, rows, nested.name)
        sentences += _controls(study, nested.name, digits)
    sentences += _family(study, list(rows.values()))
    return sentences or ["Nothing can be compared: no two arms share two finished folds."]


def _against_baseline(study: StudyRecords, rows: dict[str, _Row], arm: str, digits: int) -> str:
    row, baseline = rows[arm], study.manifest.baseline
    title, base, folds = study.titles[arm], study.titles[baseline], row["delta_folds"]
    if folds == 0:
        return f"{title} and {base} share no finished fold, so they cannot be compared yet."
    start = (
        f"{title} is {_above(row['delta_dice'], digits)} {base} in Dice "
        f"({row['dice_mean']:.{digits}f} against {rows[baseline]['dice_mean']:.{digits}f})"
    )
    if folds == 1:
        return f"{start}; one fold gives no interval and no test."
    if math.isnan(row["delta_low"]):
        return f"{start}, the same in every fold, so that no interval can be given."
    start += f", 95 % interval {row['delta_low']:+.{digits}f} to {row['delta_high']:+.{digits}f}"
    if row["delta_low"] <= 0 <= row["delta_high"]:
        return f"{start}: with {folds} folds this cannot be told from zero."
    if row["p_holm"] < ALPHA:
        return (
            f"{start}: the interval leaves out zero, and the difference is significant after "
            f"Holm's correction ({_p(row['p_holm'])})."
        )
    return (
        f"{start}: the interval of this one comparison leaves out zero, but after Holm's "
        f"correction the difference is not significant ({_p(row['p_holm'])})."
    )


def _price(study: StudyRecords, rows: dict[str, _Row], arm: str) -> list[str]:
    baseline = study.manifest.baseline
    values = differences(study, arm)
    if not len(values):
        return []
    cases = primary_cases(study)
    scored = cases.assign(dice=case_scores(cases, "dice", empty=study.empty))
    table = scored.pivot_table(index=["case", "fold"], columns="arm", values="dice")
    paired = table[[arm, baseline]].dropna()
    lost = int((paired[arm] < paired[baseline]).sum())
    parameters, macs = (rows[arm][n] / rows[baseline][n] for n in ("num_parameters", "macs"))
    sentence = (
        f"It takes {parameters:.2f} times the parameters and {macs:.2f} times the "
        f"multiply-accumulates of {study.titles[baseline]}, and does worse than it in "
        f"{int((values < 0).sum())} of {len(values)} folds and on {lost} of {len(paired)} cases."
    )
    return [sentence]


def _controls(study: StudyRecords, arm: str, digits: int) -> list[str]:
    """The arm against the baseline's grid at other widths: outside the Holm family, not tested."""
    dice, base = judged_scores(study, "dice"), study.titles[study.manifest.baseline]
    sentences: list[str] = []
    for control in same_grid(study):
        values = (scored_folds(dice, arm) - scored_folds(dice, control.name)).dropna()
        result = corrected_resampled_t(values.tolist(), test_train_ratio=study.test_train_ratio)
        if control.name == study.manifest.baseline or result is None:
            continue
        title, share = study.titles[arm], control.num_parameters / study.arm(arm).num_parameters
        sentences.append(
            f"Against {study.titles[control.name]} (the grid of {base}, {share:.2f} times the "
            f"parameters of {title}) {title} is {_interval(result, digits)}; this comparison is "
            "outside the Holm family."
        )
    return sentences


def _interval(result: ResampledT, digits: int) -> str:
    text = f"{_above(result.mean, digits)} it in Dice"
    if math.isnan(result.low):
        return f"{text}, the same in every fold, so that no interval can be given"
    zero = "holds" if result.low <= 0 <= result.high else "leaves out"
    interval = f"{result.low:+.{digits}f} to {result.high:+.{digits}f}"
    return f"{text}, 95 % interval {interval}, which {zero} zero"


def _family(study: StudyRecords, rows: list[_Row]) -> list[str]:
    tested = [row for row in rows if not math.isnan(row["p_holm"])]
    if not tested:
        return []
    base = study.titles[study.manifest.baseline]
    found = [row for row in tested if row["p_holm"] < ALPHA]
    noun = "comparison" if len(tested) == 1 else "comparisons"
    text = f"Of {len(tested)} {noun} with {base}, {len(found) or 'none'} "
    text += f"{'are' if len(found) > 1 else 'is'} significant after Holm's correction"
    if found:
        sides = [
            (_names(study, [row for row in found if row["delta_dice"] > 0]), "above"),
            (_names(study, [row for row in found if row["delta_dice"] < 0]), "below"),
        ]
        text += ": " + " and ".join(f"{names} {side}" for names, side in sides if names)
    else:
        text += f" (smallest {_p(min(row['p_holm'] for row in tested))})"
    below = [row for row in tested if row["delta_dice"] < 0]
    if below:
        verb = "lies" if len(below) == 1 else "lie"
        text += f"; in the mean, {_names(study, below)} {verb} below {base}"
    return [f"{text}."]


def _names(study: StudyRecords, rows: list[_Row]) -> str:
    names = [study.titles[row["arm"]] for row in rows]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _above(difference: float, digits: int) -> str:
    if round(abs(difference), digits) == 0:
        return "within rounding of"
    return f"{abs(difference):.{digits}f} {'above' if difference > 0 else 'below'}"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
