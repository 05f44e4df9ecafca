"""Which heads should learn, with which weights, and which should be read?"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from reports.cells import NONE, baseline_cell, difference, num_decimals, probability, words
from reports.comparison import ALPHA
from reports.document import Cell, Column, Section, Table
from reports.figures import Plot, save_figure
from reports.pairs import NO_INTERVAL, empty_words, interval_words
from reports.plots.supervision import (
    baseline_words,
    caption,
    draw_supervision,
    output_word,
    supervision_cells,
)
from reports.records import StudyRecords


def section(study: StudyRecords, folder: Path) -> Section | None:
    """Training by output; None where the study does not vary how heads are weighed."""
    frame = supervision_cells(study)
    if frame.empty:
        return None
    plot: Plot[StudyRecords] = Plot(
        name="supervision",
        title="Heads that learn against heads that are read",
        data=lambda _: frame,
        draw=draw_supervision,
        caption=caption,
    )
    return Section(
        name="supervision",
        title="Supervision of the heads",
        paragraphs=(_about(frame),),
        answer=(_found(study, frame),),
        tables=(_factorial(study, frame), _differences(study, frame)),
        figures=(save_figure(plot, study, folder),),
    )


def _about(frame: pd.DataFrame) -> str:
    weights = {
        "last": "last: the loss of the last head alone, that is no deep supervision",
        "equal": "equal: the mean over all heads, as in the UNet++ paper",
        "decayed": "decayed: weights that halve with every head to the left",
        "learned": "learned: weights that are trained with the network (their values are not recorded)",
    }  # fmt: skip
    used = [weights.get(str(level), str(level)) for level in frame["supervision"].unique()]
    return (
        f"How the heads were weighed in training ({'; '.join(used)}) against the output that is "
        "read. All outputs of one training come from the same networks, so that cells of one row "
        "are not independent."
    )


def _found(study: StudyRecords, frame: pd.DataFrame) -> str:
    digits, tested = num_decimals(frame), frame[frame["p_holm"].notna()]
    best = frame.iloc[int(frame["dice_mean"].to_numpy().argmax())]
    start = (
        f"Best mean: {_cell_words(study, best)}, Dice {best['dice_mean']:.{digits}f}. The best of "
        f"{len(frame)} means flatters."
    )
    if tested.empty:
        return f"{start} {NO_INTERVAL}"
    told = tested[tested["p_holm"] < ALPHA]
    above, below = (told["delta_dice"] > 0).sum(), (told["delta_dice"] < 0).sum()
    return (
        f"{start} Of {len(tested)} cells compared with {baseline_words(study)}, {above or 'none'} "
        f"lie significantly above it and {below or 'none'} below (Holm p < {ALPHA:g})."
    )


def _cell_words(study: StudyRecords, row: pd.Series) -> str:
    return f"{study.arm(str(row['arm'])).label}, read at {output_word(str(row['output']))}"


def _factorial(study: StudyRecords, frame: pd.DataFrame) -> Table:
    digits = num_decimals(frame)
    outputs = sorted(frame["output"].unique(), key=lambda output: (output == "mean", output))
    cells = {(row["arm"], row["output"]): row for row in frame.to_dict("records")}
    best = frame.groupby("arm", observed=True)["dice_mean"].transform("max") == frame["dice_mean"]
    best &= frame.groupby("arm", observed=True)["output"].transform("size") > 1
    bold = set(frame.loc[best, ["arm", "output"]].itertuples(index=False, name=None))
    top = frame.iloc[int(frame["dice_mean"].to_numpy().argmax())]
    rows = tuple(
        (
            words(study.arm(arm).label),
            *(_mean(cells.get((arm, o)), digits, strong=(arm, o) in bold) for o in outputs),
        )
        for arm in frame["arm"].unique()
    )
    return Table(
        name="supervision",
        title="Dice by training (rows) and output that is read (columns)",
        columns=(
            Column(title="Trained with", align="left"),
            *(Column(title=output_word(output), better="higher") for output in outputs),
        ),
        rows=rows,
        notes=(
            f"Bold: best output of a training; the best of all is {_cell_words(study, top)}.",
            (
                "Mean over the cases of a held-out fold, then mean ± standard deviation over "
                f"{int(frame['num_runs'].max())} runs. {empty_words(study)}"
            ),
            "L1 to Ld: the head at that column alone; mean of all: of the probabilities of all heads.",
        ),
        data=frame,
    )  # fmt: skip


def _mean(row: dict | None, digits: int, *, strong: bool) -> Cell:
    if row is None:
        return Cell(text=NONE, value=float("nan"))
    spread = "" if pd.isna(row["dice_sd"]) else f"± {row['dice_sd']:.{digits}f}"
    return Cell(
        text=f"{row['dice_mean']:.{digits}f}",
        spread=spread,
        value=float(row["dice_mean"]),
        strong=strong,
    )


def _differences(study: StudyRecords, frame: pd.DataFrame) -> Table:
    digits = num_decimals(frame)
    rows = tuple(
        (
            words(study.arm(row["arm"]).label),
            words(output_word(row["output"])),
            Cell(text=f"{row['dice_mean']:.{digits}f}", value=float(row["dice_mean"])),
            baseline_cell() if row["is_baseline"] else _gap(row, digits),
            Cell(text="", value=float("nan")) if row["is_baseline"] else probability(row["p_holm"]),
        )
        for row in frame.to_dict("records")
    )
    tested = int(frame["p_holm"].notna().sum())
    return Table(
        name="supervision_differences",
        title=f"Differences from {baseline_words(study)}",
        columns=(
            Column(title="Trained with", align="left"),
            Column(title="Read", align="left"),
            Column(title="Dice", better="higher"),
            Column(title="Difference [95 %]"),
            Column(title="Holm p"),
        ),
        rows=rows,
        notes=(
            f"Paired by run; {interval_words(study)}." if tested else NO_INTERVAL,
            f"Holm's correction: over the {tested} cells that were compared, all but the baseline's.",
        ),
        data=frame,
    )


def _gap(row: dict, digits: int) -> Cell:
    worse = row["p_holm"] < ALPHA and row["delta_dice"] < 0
    limits = (row["delta_low"], row["delta_high"])
    return difference(row["delta_dice"], digits, limits=limits, mark="worse" if worse else "")
