"""What a study does not show: sentences that hold for its records, and no others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from reports.boundary_scores import num_imputed
from reports.comparison import ROPE
from reports.notes import unit_name
from reports.rank_stability import spread
from reports.records import StudyRecords
from reports.scores import primary_cases
from reports.statistics import FEWEST_GROUPS
from reports.writers import counted
from unetpp.recipe import TrainRecipe
from unetpp.spec import GridSpec

# Below this many groups the percentile and BCa bootstraps of a mean cover too seldom.
_MANY_GROUPS = 50
# Width of the finest level in the paper's networks (32 to 512 over five levels).
_PAPER_WIDTH = 32
# A curve is watched over this last part of the training.
_LAST_PART = 0.2


def limits(study: StudyRecords) -> tuple[str, ...]:
    """Everything that a reader must not take from these records, most general first.

    Empty for a study that trains nothing.
    """
    if not study.manifest.trains or study.runs.empty:
        return ()
    lines = [line for check in _CHECKS for line in [check(study)] if line]
    return tuple(lines)


def _other_data(study: StudyRecords) -> str:
    name = study.manifest.dataset["name"]
    aside = int(study.manifest.folds["num_set_aside"])
    kept = f" The {aside} cases that were set aside were not scored." if aside else ""
    return (
        f"All scores are of held-out folds of one data set, {name}: there is no external test set, and "
        f"other data may order the arms differently.{kept}"
    )


def _seeds(study: StudyRecords) -> str:
    if study.manifest.num_seeds > 1:
        return ""
    return (
        "One seed: chance in training (initial weights, order of batches) cannot be told from the folds, "
        "and a run repeated with another seed would move every difference."
    )


def _folds(study: StudyRecords) -> str:
    runs = study.num_folds * study.manifest.num_seeds
    if runs >= 5:
        return ""
    return (
        f"Only {counted(runs, 'run')} an arm: intervals over runs are wide, and a difference has to be large to be "
        "seen."
    )


def _missing(study: StudyRecords) -> str:
    if not study.missing:
        return ""
    return (
        f"{len(study.missing)} of {counted(study.num_runs, 'run')} are missing: arms are compared over the runs "
        "that both have, and their means are not of the same cases."
    )


def _groups(study: StudyRecords) -> str:
    number = int(primary_cases(study)["group"].nunique())
    if number >= _MANY_GROUPS:
        return ""
    few = f"{counted(number, 'independent group')} (unit: {unit_name(study)})"
    if number < FEWEST_GROUPS:
        return f"{few}: with fewer than {FEWEST_GROUPS} nothing is said of new cases beyond these."
    return (
        f"{few}: with fewer than {_MANY_GROUPS} the intervals over new cases are too narrow rather "
        "than too wide."
    )


def _divided(study: StudyRecords) -> str:
    cases = primary_cases(study)
    folds = cases.groupby("group", observed=True)["fold"].nunique()
    number = int((folds > 1).sum())
    if not number:
        return ""
    return (
        f"{number} of {counted(len(folds), 'group')} {'has' if number == 1 else 'have'} cases in several folds: networks were scored on cases "
        "that resemble cases they were trained on, so that the scores are too good for new groups."
    )


def _noise(study: StudyRecords) -> str:
    found = spread(study)
    if np.isnan(found.ratio) or found.ratio >= 1:
        return ""
    return (
        f"The arms differ by less (standard deviation of Dice {found.between:.4f}) than the runs of one "
        f"arm ({found.within:.4f}): a mean without its paired difference says nothing here."
    )


def rising(study: StudyRecords) -> pd.Series:
    """Held-out Dice gained over the last fifth of the training, mean over runs, by arm.

    Empty where the curves were not recorded that closely.
    """
    curves = study.curves
    curves = curves if curves.empty else curves.dropna(subset=["held_out_dice"])
    if curves.empty:
        return pd.Series(dtype="float64")
    runs = ["arm", "seed", "fold"]
    ordered = curves.sort_values([*runs, "epoch"])
    last_epoch = ordered.groupby(runs, observed=True)["epoch"].transform("max")
    before = ordered[ordered["epoch"] <= last_epoch * (1 - _LAST_PART)]
    end = ordered.groupby(runs, observed=True)["held_out_dice"].last()
    start = before.groupby(runs, observed=True)["held_out_dice"].last()
    return (end - start).dropna().groupby(level="arm", observed=True).mean()


def _epochs(study: StudyRecords) -> str:
    epochs = TrainRecipe.from_json(study.manifest.recipe).epochs
    gained = rising(study)
    if gained.empty or not gained.max() > ROPE:
        return ""
    arm, most = str(gained.idxmax()), float(gained.max())
    return (
        f"Training was short ({counted(epochs, 'epoch')}): over its last fifth the held-out Dice still rose by up to "
        f"{most:.3f} ({study.titles[arm]}), so that longer training may order the arms differently."
    )


def _widths(study: StudyRecords) -> str:
    encoder = GridSpec.from_json(study.baseline.spec).encoder
    if encoder.name != "plain" or encoder.channels[0] >= _PAPER_WIDTH:
        return ""
    return (
        f"The networks are narrower than the paper's: the finest level has {encoder.channels[0]} "
        f"channels in place of {_PAPER_WIDTH}. What holds for them need not hold for wide ones."
    )


def _tuning(study: StudyRecords) -> str:
    recipe = TrainRecipe.from_json(study.manifest.recipe)
    return (
        f"One recipe served all arms (peak learning rate {recipe.learning_rate:g}, epochs: "
        f"{recipe.epochs}): an arm that would like another one is at a disadvantage. Which settings were "
        "tried before is not recorded, and no published score on the same folds is at hand to say how "
        "strong the baseline is."
    )


def _selection(study: StudyRecords) -> str:
    if len(study.arms) < 3:
        return ""
    return (
        "The best arm is picked by the scores that are shown, so that its mean is a little too good; no "
        "outer fold was kept for an unbiased one."
    )


def _imputed(study: StudyRecords) -> str:
    number = num_imputed(study)
    if not number:
        return ""
    return (
        f"{number} of {len(study.surfaces):,} boundary distances (case and run) are imputed by the diagonal "
        "of the image, as one mask is empty: they may carry most of a mean distance."
    )


def _machines(study: StudyRecords) -> str:
    if study.latencies.empty:
        return ""
    named = sorted(map(str, study.latencies["machine_summary"].unique()))
    if len(named) > 1:
        return "Latencies were taken on several machines and do not compare across them."
    return f"Latencies are those of one machine ({named[0]}); other hardware may order the arms differently."


def _trained_on(study: StudyRecords) -> str:
    machines = sorted(map(str, study.runs["machine"].unique()))
    if len(machines) < 2:
        return ""
    return (
        f"Runs were trained on {len(machines)} kinds of machines ({'; '.join(machines)}), which round "
        "differently: the same run would not come out the same to the last digits on another."
    )


def _retrained(study: StudyRecords) -> str:
    number = int((study.runs["retrained_at"] != "").sum())
    if not number:
        return ""
    return (
        f"The trained networks of {number} of {len(study.runs)} runs were lost and came out otherwise "
        "when they were trained again: pictures, feature maps and scores without single skips are "
        "those of the new networks, all other scores of the first."
    )


def _precision(study: StudyRecords) -> str:
    precision = TrainRecipe.from_json(study.manifest.recipe).precision
    if precision == "fp32":
        return ""
    return f"Networks were trained in {precision} and scored in fp32; training in fp32 may differ."


_CHECKS: tuple[Callable[[StudyRecords], str], ...] = (
    _missing,
    _other_data,
    _seeds,
    _folds,
    _groups,
    _divided,
    _noise,
    _epochs,
    _selection,
    _tuning,
    _widths,
    _imputed,
    _machines,
    _trained_on,
    _retrained,
    _precision,
)
