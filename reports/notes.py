"""Sentences below tables: what a score is, which cases count, what the spread is."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from reports.comparison import comparable
from reports.pairs import empty_words, run_words
from reports.records import StudyRecords
from reports.scores import FORMULAS, Metric, count_empty, primary_cases

NO_TEST = (
    "No interval and no test: they need at least two runs (fold and seed) that both arms have "
    "finished, and there are fewer."
)
_CUT = "Limits are cut at ±1, beyond which no difference can lie: so few runs say next to nothing."


def definitions(study: StudyRecords, metrics: Sequence[Metric] = ("dice", "iou")) -> str:
    """Formulas, the unit that is scored and the size of the images."""
    formulas = [FORMULAS[name] for name in metrics]
    listed = " and ".join([", ".join(formulas[:-1]), formulas[-1]] if formulas[1:] else formulas)
    return (
        f"{listed} per case{_per_class(study)}, {study.manifest.dataset['size']}, scored in fp32."
    )


def empty_masks(study: StudyRecords) -> str:
    """The rule for empty masks and on how many cases it bore."""
    counted = count_empty(primary_cases(study), empty=study.empty)
    fewest, most = counted.left_out
    left_out = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    unit = "scores (case, class and run)" if several_classes(study) else "scores (case and run)"
    return (
        f"{empty_words(study)} {counted.num_cases} cases were scored, {counted.num_empty} with an "
        f"empty reference; {left_out} {unit} left out per arm."
    )


def judged_output(study: StudyRecords) -> str:
    """Which output of each arm is scored."""
    arms_of: dict[str, list[str]] = {}
    pairs = study.runs[["arm", "primary_output"]].drop_duplicates()
    for arm, output in pairs.itertuples(index=False):
        arms_of.setdefault(str(output), []).append(study.titles[str(arm)])
    names = {"mean": "the mean of all heads"}
    if len(arms_of) == 1:
        output = next(iter(arms_of))
        return f"Judged output: {names.get(output, output)} of every arm."
    listed = "; ".join(f"{names.get(o, o)} of {', '.join(arms)}" for o, arms in arms_of.items())
    return f"Judged output: {listed}."


def averaging(study: StudyRecords, rows: pd.DataFrame) -> str:
    """How means and standard deviations are taken, and over what.

    Args:
        study: whose records.
        rows: with the column num_runs.
    """
    low, high = int(rows["num_runs"].min()), int(rows["num_runs"].max())
    runs = (
        run_words(study)
        if low == high == study.num_folds * study.manifest.num_seeds
        else (f"{high} runs" if low == high else f"{low} to {high} runs")
    )
    return (
        f"mean over the cases of a held-out fold, then mean ± standard deviation over {runs}; the "
        "deviation is the spread of runs, no interval and no standard error."
    )


def retraining_notes(study: StudyRecords, rows: pd.DataFrame) -> list[str]:
    """What difference, interval and Holm p are, and over which family; or why there are none."""
    family = [study.titles[arm] for arm in rows.loc[rows["p"].notna(), "arm"]]
    base = study.titles[study.manifest.baseline]
    ranked = (
        []
        if comparable(rows) or len(rows) < 2
        else ["The arms have different numbers of runs: no mean is marked as best."]
    )
    if rows["delta_low"].notna().sum() == 0 and not family:
        return [NO_TEST, *ranked] if len(rows) > 1 else []
    return [
        (
            f"Delta: Dice minus that of {base}, paired by run (fold and seed), with the 95 % interval "
            f"of the corrected resampled t (Nadeau and Bengio 2003; n_test/n_train = "
            f"{study.test_train_ratio:.3f}, the mean over folds); the interval is of this one "
            "comparison."
        ),
        (
            f"Holm p: two-sided p of that test, corrected over {len(family)} comparison"
            f"{'s' if len(family) != 1 else ''} of Dice with {base} ({', '.join(family)})."
        ),
        *([_CUT] if (rows[["delta_low", "delta_high"]].abs() > 1).any(axis=None) else []),
        *ranked,
    ]


def several_classes(study: StudyRecords) -> bool:
    """Whether more than one foreground class is scored."""
    return len(study.manifest.dataset["classes"]) > 1


def class_name(study: StudyRecords, label: int) -> str:
    """The name of a foreground class, from 1; its number where it has no name."""
    names = study.manifest.dataset["classes"]
    return str(names[label - 1]) if 0 < label <= len(names) else f"class {label}"


def unit_name(study: StudyRecords) -> str:
    """What is drawn when cases are drawn again: "patient", "group" or "case"."""
    data, named = study.manifest.dataset, study.manifest.folds["group"]
    if named:
        return str(named)
    return "group" if int(data["num_groups"]) < int(data["num_cases"]) else "case"


def _per_class(study: StudyRecords) -> str:
    """What several classes do to the unit that is scored."""
    names = study.manifest.dataset["classes"]
    return f" and class ({', '.join(names)}; each counts once)" if len(names) > 1 else ""
