"""The answer of a study in a few plain sentences, from the numbers and nothing else."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reports.case_table import case_table
from reports.cells import num_decimals
from reports.comparison import ALPHA, SEED, differences, result_rows, run_differences
from reports.depth import depth_rows
from reports.depth_texts import depth_verdict
from reports.records import StudyRecords, most_nested, same_grid
from reports.scores import judged_scores
from reports.statistics import ResampledT, corrected_resampled_t
from reports.statistics.cases import bca, mean_sums, resample
from reports.writers import counted

_Row = dict[Hashable, Any]


def verdict(study: StudyRecords) -> list[str]:
    """A few sentences: the most nested arm against the baseline, its price, its control, all arms.

    Where the arms are depths, those that are enough come first.

    All but one sentence is about the architectures trained again (unit: the run); that one, on new
    cases, says so. "Significant" is said only of a comparison in the Holm family. An interval that
    holds zero is said to hold zero.
    """
    frame = result_rows(study)
    digits = num_decimals(frame)
    rows: dict[str, _Row] = {row["arm"]: row for row in frame.to_dict("records")}
    nested = most_nested(study)
    depths = depth_rows([(str(study.manifest.dataset["name"]), study)])
    sentences: list[str] = depth_verdict(depths) if len(depths) else []
    if nested is not None:
        sentences.append(_against_baseline(study, rows, nested.name, digits))
        sentences += _on_cases(study, rows, nested.name, digits)
        sentences += _controls(study, nested.name, digits)
    sentences += _family(study, list(rows.values()))
    return sentences or [_nothing(study, rows)]


def _against_baseline(study: StudyRecords, rows: dict[str, _Row], arm: str, digits: int) -> str:
    row, baseline = rows[arm], study.manifest.baseline
    title, base, runs = study.titles[arm], study.titles[baseline], row["delta_runs"]
    if runs == 0:
        return f"{title} and {base} share no finished run, so they cannot be compared yet."
    start = (
        f"{title} is {_above(row['delta_dice'], digits)} {base} in Dice "
        f"({row['dice_mean']:.{digits}f} against {rows[baseline]['dice_mean']:.{digits}f})"
    )
    if runs == 1:
        return f"{start}; one run gives no interval and no test."
    if math.isnan(row["delta_low"]):
        return f"{start}, the same in every run, so that no interval can be given."
    start += f", 95 % interval {_limits(row['delta_low'], row['delta_high'], digits)}"
    if row["delta_low"] <= 0 <= row["delta_high"]:
        return f"{start}: with {_runs(study, runs)} this cannot be told from zero."
    if row["p_holm"] < ALPHA:
        return (
            f"{start}: the interval leaves out zero, and the difference is significant after "
            f"Holm's correction ({_p(row['p_holm'])})."
        )
    return (
        f"{start}: the interval of this one comparison leaves out zero, but after Holm's "
        f"correction the difference is not significant ({_p(row['p_holm'])})."
    )


def _on_cases(study: StudyRecords, rows: dict[str, _Row], arm: str, digits: int) -> list[str]:
    """The price, and what these trained networks do on cases."""
    baseline = study.manifest.baseline
    values = differences(study, arm)
    if not len(values):
        return []
    table = case_table(study)
    gains = table.gains(baseline)[:, table.places.arms.index(arm)]
    lost, paired = np.count_nonzero(gains < 0), np.count_nonzero(~np.isnan(gains))
    parameters, macs = (rows[arm][n] / rows[baseline][n] for n in ("num_parameters", "macs"))
    unit = "cases" if len(study.manifest.dataset["classes"]) == 1 else "cases and classes"
    return [
        (
            f"It takes {parameters:.2f} times the parameters and {macs:.2f} times the "
            f"multiply-accumulates of {study.titles[baseline]}, and does worse than it in "
            f"{int((values < 0).sum())} of {_runs(study, len(values))} and on {lost} of {paired} "
            f"{unit}."
        ),
        *_new_cases(gains, table.places.groups, digits),
    ]


def _new_cases(gains: NDArray[np.float64], groups: NDArray[np.object_], digits: int) -> list[str]:
    known = ~np.isnan(gains)
    if not known.any():
        return []
    (found,) = bca(resample(mean_sums(gains[known], groups[known]), seed=SEED))
    if math.isnan(found.low):
        return []
    zero = "holds" if found.low <= 0 <= found.high else "leaves out"
    return [
        (
            f"On new cases these trained networks are {_above(found.value, digits)} it, 95 % interval "
            f"{_limits(found.low, found.high, digits)} over {counted(found.n, 'group')}, which {zero} "
            "zero; of networks trained again this says nothing."
        )
    ]


def _runs(study: StudyRecords, number: int) -> str:
    """In folds, or in runs (fold and seed) where there are several seeds."""
    if study.manifest.num_seeds > 1:
        return f"{number} runs (fold and seed)"
    return f"{number} fold{'s' if number != 1 else ''}"


def _nothing(study: StudyRecords, rows: dict[str, _Row]) -> str:
    if len(study.arms) == 1:
        arm = study.arms[0]
        score = rows[arm.name]["dice_mean"]
        return f"{study.titles[arm.name]} reaches a Dice of {score:.3f}; it has no other arm beside it."
    return "Nothing can be compared: no two arms share two finished runs."


def _controls(study: StudyRecords, arm: str, digits: int) -> list[str]:
    """The arm against the baseline's grid at other widths: outside the Holm family, not tested."""
    dice, base = judged_scores(study, "dice"), study.titles[study.manifest.baseline]
    sentences: list[str] = []
    for control in same_grid(study):
        values = run_differences(dice, arm, control.name)
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
        return f"{text}, the same in every run, so that no interval can be given"
    zero = "holds" if result.low <= 0 <= result.high else "leaves out"
    return f"{text}, 95 % interval {_limits(result.low, result.high, digits)}, which {zero} zero"


def _limits(low: float, high: float, digits: int) -> str:
    """Cut at -1 and 1, beyond which no difference of two scores lies."""
    return f"{max(low, -1.0):+.{digits}f} to {min(high, 1.0):+.{digits}f}"


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
