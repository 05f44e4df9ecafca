"""What does a pruned network lose, and what does it save? Figure 8 of the paper, and its numbers."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from reports import cells
from reports.document import Cell, Column, Section, Table
from reports.figures import Plot, save_figure
from reports.notes import definitions, empty_masks
from reports.pairs import NO_INTERVAL, interval_words, run_words, within
from reports.plots import accuracy_latency, savings
from reports.price import (
    hypervolumes,
    network_rows,
    pruned_arms,
    reference_cost,
    saving_rows,
    trained_rows,
)
from reports.price_texts import PRUNING_LIMITS, UNTIMED_LIMITS, pruning_sentences
from reports.records import StudyRecords
from unetpp.errors import UserError

_ACCURACY: Plot[StudyRecords] = Plot(
    name="accuracy_latency",
    title="Accuracy versus latency",
    data=accuracy_latency.accuracy_latency,
    draw=accuracy_latency.draw_accuracy_latency,
    caption=accuracy_latency.caption,
)
_SAVINGS: Plot[StudyRecords] = Plot(
    name="savings",
    title="What pruning saves and costs",
    data=savings.savings,
    draw=savings.draw_savings,
    caption=savings.caption,
)
_UNTIMED = "Accuracy versus multiply-accumulates"
_TIMES = (
    Column(title="ms per image [quartiles]", better="lower"),
    Column(title="time saved [95 %]", better="higher"),
)
_SAVED = (
    Column(title="Network", align="left"),
    Column(title="Params", better="lower"),
    Column(title="saved", narrow=False),
    Column(title="MACs", better="lower", narrow=False, explained="multiply-accumulates"),
    Column(title="saved", narrow=False),
    *_TIMES,
    Column(title="Dice [95 %]", better="higher", narrow=False),
    Column(title="Delta Dice [95 %]"),
    Column(title="Holm p"),
)
_TRAINED = (
    Column(title="Depth", align="left"),
    Column(title="pruned", align="left"),
    Column(title="Dice pruned [95 %]", better="higher"),
    Column(title="Dice trained [95 %]", better="higher"),
    Column(title="Delta Dice [95 %]"),
    Column(title="Holm p"),
    Column(title="Params, ratio", narrow=False, explained="pruned over trained alone"),
    Column(title="speed-up [95 %]", better="higher", narrow=False),
)


def section(study: StudyRecords, folder: Path) -> Section | None:
    """Tables of heads and figures of price; None where there are not two networks to compare.

    Latencies of two machines are not mixed: the section then says why, and prints neither.

    Args:
        study: whose records.
        folder: for the figures.
    """
    try:
        rows = network_rows(study)
    except UserError as error:
        figure = save_figure(_ACCURACY, study, folder)
        paragraph = f"Not compared: {error}."
        return Section(
            name="pruning", title=_title(study), paragraphs=(paragraph,), figures=(figure,)
        )
    if len(rows) < 2:
        return None
    saved, trained = saving_rows(study), trained_rows(study)
    tables = (
        *((saving_table(study, saved),) if len(saved) else ()),
        *((trained_table(study, trained),) if len(trained) else ()),
    )
    timed = bool(rows["num_rounds"].any())
    accuracy = _ACCURACY if timed else replace(_ACCURACY, title=_UNTIMED)
    plots = (accuracy, _SAVINGS) if len(saved) else (accuracy,)
    return Section(
        name="pruning",
        title=_title(study, timed=timed),
        paragraphs=(PRUNING_LIMITS if timed else UNTIMED_LIMITS,),
        answer=pruning_sentences(study, saved, trained),
        tables=tables,
        pairs=_volumes(study, rows),
        figures=tuple(save_figure(plot, study, folder) for plot in plots),
    )


def _title(study: StudyRecords, *, timed: bool = True) -> str:
    if pruned_arms(study):
        return "Pruning"
    return _ACCURACY.title if timed else _UNTIMED


def saving_table(study: StudyRecords, rows: pd.DataFrame) -> Table:
    """Price, saving and loss of every head of the deep-supervised arms."""
    digits = cells.num_decimals(rows)
    # Without latencies their columns would be empty.
    timed = bool(rows["num_rounds"].any())
    kept = [k for k, column in enumerate(_SAVED) if timed or column not in _TIMES]
    lines = [_saving_line(study, row, digits) for row in rows.to_dict("records")]
    return Table(
        name="savings",
        title="What each head costs, saves and scores",
        columns=tuple(_SAVED[k] for k in kept),
        rows=tuple(tuple(line[k] for k in kept) for line in lines),
        notes=(
            definitions(study, ("dice",)),
            empty_masks(study),
            (
                f"Mean over the cases of a held-out fold, then over {run_words(study)}. Brackets "
                f"beside a score: {interval_words(study)}, cut at 0 and 1 where it is a mean."
            ),
            *_saving_notes(rows),
        ),
        data=rows,
    )


def _saving_notes(rows: pd.DataFrame) -> tuple[str, ...]:
    family = int(rows["p"].notna().sum())
    test = (
        "Delta: Dice minus that of the deepest head of the same trained networks, paired by run. "
        f"Holm p: two-sided p of that test over the {family} pruned heads of the table."
    )
    times = (
        "Saved: share of the deepest head. Milliseconds: median and quartiles over the rounds of "
        "the network that was really cut out. Time saved: 1 - 1 / speed-up; the speed-up is the "
        "geometric mean over the rounds of the ratio of both medians within a round, so it may "
        "differ a little from the ratio of the printed medians; its interval is a bootstrap over "
        "rounds, and is about this machine alone."
    )
    untimed = "Saved: share of the deepest head. No latencies were taken."
    return (test if family else NO_INTERVAL, times if rows["num_rounds"].any() else untimed)


def _saving_line(study: StudyRecords, row: Mapping[Hashable, Any], digits: int) -> tuple[Cell, ...]:
    whole = row["output"] == row["deepest"]
    quartiles = (row["milliseconds_q25"], row["milliseconds_q75"])
    time = cells.share(row["saved_time"])
    if not math.isnan(row["saved_time_low"]) and not whole:
        low, high = (100 * row[f"saved_time_{end}"] for end in ("low", "high"))
        time = replace(time, spread=f"[{low:.1f}, {high:.1f}]")
    limits = (row["delta_low"], row["delta_high"])
    return (
        cells.words(f"{study.titles[row['arm']]} {row['output']}"),
        cells.parameters(row["num_parameters"]),
        cells.blank() if whole else cells.share(row["saved_parameters"]),
        cells.macs(row["macs"]),
        cells.blank() if whole else cells.share(row["saved_macs"]),
        cells.number(row["milliseconds"], _time_digits(row["milliseconds"]), limits=quartiles),
        cells.blank() if whole else time,
        cells.number(row["dice_mean"], digits, limits=within(row["dice_low"], row["dice_high"])),
        cells.words("deepest head")
        if whole
        else cells.difference(row["delta_dice"], digits, limits=limits, bound=1.0),
        cells.blank() if whole else cells.probability(row["p_holm"]),
    )


def _time_digits(milliseconds: float) -> int:
    """Three significant digits, as no clock on a shared machine gives more."""
    if math.isnan(milliseconds) or milliseconds <= 0:
        return 0
    return max(0, 2 - math.floor(math.log10(milliseconds)))


def trained_table(study: StudyRecords, rows: pd.DataFrame) -> Table:
    """Each pruned network beside the plain one that was trained at its depth alone."""
    digits = cells.num_decimals(rows)
    family = int(rows["p"].notna().sum())
    return Table(
        name="pruned_against_trained",
        title="Pruned to a depth, or a plain network trained at it",
        columns=_TRAINED,
        rows=tuple(_trained_line(study, row, digits) for row in rows.to_dict("records")),
        notes=(
            (
                "Delta: Dice of the pruned network minus that of the plain one, paired by run; brackets: "
                f"{interval_words(study)}. Holm p: two-sided p over the {family} rows of the table."
            )
            if family
            else NO_INTERVAL,
            (
                "This is the fair rival of a pruned network: what its depth reaches without deeper "
                "layers to train with. At L1 both are one architecture, trained in two ways. Bold: "
                "the higher mean of the two, whether or not a test tells them apart."
            ),
            *(
                ("Speed-up: above 1 where the pruned network is faster; as in the table above.",)
                if rows["milliseconds"].notna().any()
                else ()
            ),
        ),
        data=rows,
    )


def _trained_line(
    study: StudyRecords, row: Mapping[Hashable, Any], digits: int
) -> tuple[Cell, ...]:
    better = cells.places([row["dice_mean"], row["plain_dice_mean"]])
    scores = [
        cells.number(
            row[f"{prefix}dice_mean"],
            digits,
            limits=within(row[f"{prefix}dice_low"], row[f"{prefix}dice_high"]),
        )
        for prefix in ("", "plain_")
    ]
    pruned, plain = (
        replace(cell, strong=rank == 1) for cell, rank in zip(scores, better, strict=True)
    )
    price = row["num_parameters"] / row["plain_num_parameters"]
    return (
        cells.words(row["output"]),
        cells.words(study.titles[row["arm"]]),
        pruned,
        plain,
        cells.difference(
            row["delta_dice"], digits, limits=(row["delta_low"], row["delta_high"]), bound=1.0
        ),
        cells.probability(row["p_holm"]),
        cells.number(price, 2),
        cells.number(row["speed_up"], 2, limits=(row["speed_up_low"], row["speed_up_high"])),
    )


def _volumes(study: StudyRecords, rows: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    """The hypervolume of each front, with its reference in words."""
    latency = rows["cost"].iloc[0] == "milliseconds"
    corner = reference_cost(rows)
    price = (
        f"{corner:.3g} ms per image" if latency else f"{corner / 1e9:.3g} G multiply-accumulates"
    )
    values = "; ".join(f"{name} {value:.3f}" for name, value in hypervolumes(study, rows).items())
    return (
        (
            "Hypervolume",
            (
                f"{values}. Share of the rectangle from the reference (Dice 0, {price}: 1.1 times the "
                "dearest network) to Dice 1 at no cost, on linear axes, of mean Dice; without "
                "interval or test. The reference depends on the networks of this study, so compare "
                "within it alone."
            ),
        ),
    )
