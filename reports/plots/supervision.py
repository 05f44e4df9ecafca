"""Heads that learn against heads that are read: Dice of every combination."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports.comparison import ALPHA
from reports.pairs import judged_output, output_scores, paired, row_of
from reports.plots.palette import looks
from reports.records import StudyRecords
from reports.statistics import holm

FACTOR = "supervision"


def supervised_arms(study: StudyRecords) -> list[str]:
    """Arms by how their heads were weighed; empty unless there are two ways or more."""
    arms = {arm.name: arm.levels[FACTOR] for arm in study.arms if FACTOR in arm.levels}
    return list(arms) if len(set(arms.values())) > 1 else []


def supervision_cells(study: StudyRecords) -> pd.DataFrame:
    """One row per (arm, output): how its heads were weighed in training, and what is read.

    Columns: arm, supervision, output, is_baseline, dice_mean, dice_sd, num_runs; delta_dice from
    the judged output of the baseline, paired by run, delta_low, delta_high, t, p, delta_runs; p_holm
    over all cells but that one. Empty where the study does not vary the weights.
    """
    arms = supervised_arms(study)
    if not arms or study.cases.empty:
        return pd.DataFrame()
    dice = output_scores(study, "dice")
    reference = (study.manifest.baseline, judged_output(study, study.manifest.baseline))
    base = row_of(dice, reference)
    outputs = sorted(
        {output for arm, output in dice.index if arm in arms},
        key=lambda output: (output == "mean", output),
    )
    rows: list[dict[str, object]] = []
    for arm in arms:
        for output in outputs:
            own = row_of(dice, (arm, output))
            if own.empty:
                continue
            gap = paired(own, base, test_train_ratio=study.test_train_ratio)
            is_baseline = (arm, output) == reference
            if is_baseline:
                gap = {name: 0 if name == "delta_runs" else math.nan for name in gap}
            rows.append(
                {
                    "arm": arm,
                    "supervision": study.arm(arm).levels[FACTOR],
                    "output": output,
                    "is_baseline": is_baseline,
                    "dice_mean": own.mean(),
                    "dice_sd": own.std(ddof=1) if len(own) > 1 else math.nan,
                    "num_runs": len(own),
                    **gap,
                }
            )
    frame = pd.DataFrame(rows)
    return frame.assign(p_holm=holm(frame["p"].tolist())) if len(frame) else frame


def draw_supervision(study: StudyRecords, frame: pd.DataFrame) -> Figure:
    """Outputs across, difference from the baseline upward, a mark a training; filled: told from 0."""
    look = looks(study)
    outputs = list(dict.fromkeys(frame["output"]))
    arms = list(dict.fromkeys(frame["arm"]))
    outputs.sort(key=lambda output: (output == "mean", output))
    figure = Figure(figsize=(7, 3))
    axes = figure.subplots()
    axes.axhline(0, color="#888888", linewidth=0.8)
    for k, arm in enumerate(arms):
        rows = frame[(frame["arm"] == arm) & ~frame["is_baseline"]]
        if rows.empty:
            continue
        style = look[arm]
        x = np.array([outputs.index(output) for output in rows["output"]], dtype=np.float64)
        x += (k - (len(arms) - 1) / 2) * 0.16
        y = rows["delta_dice"].to_numpy()
        errors = [y - rows["delta_low"].to_numpy(), rows["delta_high"].to_numpy() - y]
        axes.errorbar(x, y, yerr=errors, fmt="none", ecolor=style.colour, elinewidth=1)
        is_told = (rows["p_holm"] < ALPHA).to_numpy()
        for shown, face in ((is_told, style.colour), (~is_told, "white")):
            axes.plot(
                x[shown], y[shown], style.marker, color=style.colour, markerfacecolor=face,
                markersize=5, zorder=3, label=study.arm(arm).label if face != "white" else "",
            )  # fmt: skip
    axes.set_xticks(range(len(outputs)), [output_word(output) for output in outputs])
    axes.set_xlim(-0.6, len(outputs) - 0.4)
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("output that is read")
    axes.set_ylabel(f"Dice less that of\n{baseline_words(study)}")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, title="trained with")
    return figure


def output_word(output: str) -> str:
    """How a heading names an output."""
    return "mean of all" if output == "mean" else output


def baseline_words(study: StudyRecords) -> str:
    """The cell that all others are compared with."""
    base = study.manifest.baseline
    return f"{study.arm(base).label}, read at {judged_output(study, base)}"


def caption(study: StudyRecords, frame: pd.DataFrame) -> str:
    """What marks and bars are."""
    compared = int(frame["p_holm"].notna().sum())
    return (
        f"Difference in Dice from {baseline_words(study)}, paired over up to "
        f"{int(frame['delta_runs'].max())} runs. Mark: mean; bar: 95 % interval of the corrected "
        f"resampled t (n_test/n_train = {study.test_train_ratio:.3f}), of networks that are trained "
        f"again. Filled: told from 0 (Holm p < {ALPHA:g} over {compared} cells)."
    )
