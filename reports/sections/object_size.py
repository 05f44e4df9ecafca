"""Does the gain of nested skips depend on the size of what is to be segmented?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from reports.case_table import case_places, group_means
from reports.cells import count, decimals, difference, number, probability, words
from reports.comparison import ALPHA
from reports.document import Cell, Column, Section, Table
from reports.figures import Plot, save_figure
from reports.paired_tests import groups_note, unit_word
from reports.pairs import empty_words
from reports.plots.object_rates import FOUND, draw_object_rates, object_caption, object_rates
from reports.plots.object_size import (
    draw_size_cases,
    nested_arms,
    size_caption,
    size_cases,
    size_gains,
)
from reports.records import StudyRecords
from reports.scores import primary_cases
from reports.statistics import holm
from reports.writers import counted, p_value

# With fewer groups of cases a rank correlation is not told from zero unless it is near 1.
_FEWEST_FOR_TREND = 10


def section(study: StudyRecords, folder: Path) -> Section | None:
    """Gain of the most nested arms by size; None where no case was scored by one and the baseline."""
    frame = size_cases(study)
    gains = size_gains(study, frame) if len(frame) else frame
    if gains.empty:
        return None
    rates = object_rates(study)
    trends = size_trends(study, frame)
    return Section(
        name="object_size",
        title="Size of what is to be segmented",
        paragraphs=(_about(study, rates), _empty(study)),
        answer=tuple(_found(study, gains, trends)),
        tables=(_gain_table(study, gains, trends), *([_rate_table(study, rates)] if len(rates) else [])),
        figures=tuple(save_figure(plot, study, folder) for plot in _plots(frame, rates)),
    )  # fmt: skip


def _plots(frame: pd.DataFrame, rates: pd.DataFrame) -> Iterator[Plot[StudyRecords]]:
    yield Plot(
        name="object_size",
        title="Dice by the size of the reference",
        data=lambda _: frame,
        draw=draw_size_cases,
        caption=size_caption,
    )
    if len(rates):
        yield Plot(
            name="object_rates",
            title="Single objects by their size",
            data=lambda _: rates,
            draw=draw_object_rates,
            caption=object_caption,
        )


def size_trends(study: StudyRecords, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per nested arm: rank correlation of gain and size, over groups of cases.

    Columns: arm, rho (Spearman, of the mean gain and the mean size of each group), p (two-sided;
    NaN with fewer than ten groups), num, p_holm (over the arms).
    """
    base = frame[frame["arm"] == study.manifest.baseline].reset_index(drop=True)
    rows: list[dict[str, object]] = []
    for arm in nested_arms(study):
        gain = frame.loc[frame["arm"] == arm, "dice"].to_numpy() - base["dice"].to_numpy()
        kept = ~np.isnan(gain)
        groups = base.loc[kept, "group"].tolist()
        gain_g = group_means(gain[kept], groups)
        size_g = group_means(base.loc[kept, "size"].to_numpy(), groups)
        rho, p = math.nan, math.nan
        if len(gain_g) >= _FEWEST_FOR_TREND and np.ptp(gain_g) > 0 and np.ptp(size_g) > 0:
            rho, p = map(float, stats.spearmanr(gain_g, size_g))
        rows.append({"arm": arm, "rho": rho, "p": p, "num": len(gain_g)})
    trends = pd.DataFrame(rows)
    return trends.assign(p_holm=holm(trends["p"].tolist()))


def _about(study: StudyRecords, rates: pd.DataFrame) -> str:
    base = study.titles[study.manifest.baseline]
    arms = " and ".join(study.titles[arm] for arm in nested_arms(study))
    objects = " The same is then shown for single objects." if len(rates) else ""
    return (
        f"Cases are parted by the pixels of their reference, and {base} is compared with {arms} "
        f"within each part.{objects} A wrong pixel costs a small reference more Dice than a large "
        "one, and a score near 1 leaves no room for a gain: a gain that shrinks with size may come "
        "from the score as well as from the network."
    )


def _found(study: StudyRecords, gains: pd.DataFrame, trends: pd.DataFrame) -> list[str]:
    lines: list[str] = []
    for row in trends.to_dict("records"):
        own = gains[gains["arm"] == row["arm"]]
        title, tested = study.titles[row["arm"]], own["p_holm"].notna().sum()
        told = own[own["p_holm"] < ALPHA]
        above = int((told["difference"] > 0).sum())
        text = f"{title}: "
        if tested:
            text += (
                f"of {tested} size groups that could be tested, a gain is significant in {above}"
            )
            below = len(told) - above
            text += f" and a loss in {below}" if below else ""
        else:
            text += "no size group has enough groups of cases that differ for a test"
        lines.append(f"{text}; {_trend_words(row)}.")
    return lines


def _trend_words(row: dict) -> str:
    if math.isnan(row["rho"]):
        return (
            f"a trend of the gain with size is not tested ({counted(row['num'], 'group')} of cases; it takes "
            f"{_FEWEST_FOR_TREND} that differ)"
        )
    text = f"rank correlation of gain and size {row['rho']:+.2f} (Holm p {p_value(row['p_holm'])})"
    if not row["p_holm"] < ALPHA:
        return f"{text}, not told from none"
    return f"{text}: the gain {'grows' if row['rho'] > 0 else 'shrinks'} with size"


def _empty(study: StudyRecords) -> str:
    rows = primary_cases(study)
    empty = rows[rows["tp"] + rows["fn"] == 0]
    if empty.empty:
        return "Every scored case has a reference."
    found = (empty["fp"] > 0).groupby(empty["arm"], observed=True).mean()
    shares = ", ".join(
        f"{study.titles[arm]} {found[arm]:.0%}"
        for arm in (study.manifest.baseline, *nested_arms(study))
        if arm in found.index
    )
    return (
        f"{empty['case'].nunique()} cases with an empty reference are in no size group. Share of "
        f"these in which something was predicted all the same: {shares}."
    )


def _gain_table(study: StudyRecords, gains: pd.DataFrame, trends: pd.DataFrame) -> Table:
    digits = decimals((gains["high"] - gains["low"]) / 2, least=3, most=4)
    base, places = study.titles[study.manifest.baseline], case_places(study, primary_cases(study))
    rows = tuple(
        (
            words(study.titles[row["arm"]]),
            _pixels(row),
            count(row["num_cases"]),
            count(row["num"]),
            number(row["base_dice"], digits),
            number(row["dice"], digits),
            difference(
                row["difference"], digits, limits=(row["low"], row["high"]), mark=_mark(row)
            ),
            probability(row["p_holm"]),
        )
        for row in gains.to_dict("records")
    )
    return Table(
        name="object_size",
        title=f"Gain over {base} by the size of the reference",
        columns=(
            Column(title="Arm", align="left"),
            Column(title="Pixels"),
            Column(title="Cases"),
            Column(title="Groups", explained="groups of cases behind interval and test", narrow=False),
            Column(title=f"Dice {base}", better="higher", narrow=False),
            Column(title="Dice", better="higher"),
            Column(title="Gain [95 %]"),
            Column(title="Holm p"),
        ),
        rows=rows,
        notes=(
            ("Size groups are quantiles of the reference's pixels: seven, fewer where a group would "
            "hold fewer than six cases. Dice per case under the run that held it out, mean over "
            f"seeds{_per_class(study)}."),
            groups_note(unit_word(places)),
            f"Holm's correction: over the size groups of an arm. {empty_words(study)}",
            ("Trend: Spearman's rank correlation of mean gain and mean size over groups of cases, "
            f"Holm over the arms: {_trend_list(study, trends)}."),
        ),
        data=gains,
    )  # fmt: skip


def _trend_list(study: StudyRecords, trends: pd.DataFrame) -> str:
    return "; ".join(
        f"{study.titles[row['arm']]} "
        + ("not computed" if math.isnan(row["rho"]) else f"{row['rho']:+.2f}")
        + f", n = {row['num']}, p {p_value(row['p'])}"
        for row in trends.to_dict("records")
    )


def _per_class(study: StudyRecords) -> str:
    return "; with several classes every (case, class) counts once" if len(
        study.manifest.dataset["classes"]
    ) > 1 else ""  # fmt: skip


def _mark(row: dict) -> Literal["", "tie", "worse"]:
    return "worse" if row["p_holm"] < ALPHA and row["difference"] < 0 else ""


def _pixels(row: dict) -> Cell:
    one = row["smallest"] == row["largest"]
    text = f"{row['smallest']:,}" if one else f"{row['smallest']:,} to {row['largest']:,}"
    return Cell(text=text, value=float(row["smallest"]))


def _rate_table(study: StudyRecords, rates: pd.DataFrame) -> Table:
    digits = decimals((rates["found_high"] - rates["found_low"]) / 2, least=3, most=4)
    rows = tuple(
        (
            words(study.titles[row["arm"]]),
            _pixels(row),
            count(row["num_objects"]),
            number(row["found"], digits, limits=(row["found_low"], row["found_high"])),
            _gain(row, "found", digits),
            number(row["iou"], digits, limits=(row["iou_low"], row["iou_high"])),
            _gain(row, "iou", digits),
        )
        for row in rates.to_dict("records")
    )
    base = study.titles[study.manifest.baseline]
    return Table(
        name="object_rates",
        title="Single objects by their size",
        columns=(
            Column(title="Arm", align="left"),
            Column(title="Pixels"),
            Column(title="Objects"),
            Column(title="Found [95 %]", better="higher"),
            Column(title="Gain, found [95 %]", narrow=False),
            Column(title="Mean IoU [95 %]", better="higher"),
            Column(title="Gain, IoU [95 %]", narrow=False),
        ),
        rows=rows,
        notes=(
            (
                f"An object is a face-connected component of the reference; found: IoU above {FOUND:g} "
                "with its partner, the predicted object of largest IoU, one to one. Mean IoU is over "
                f"all objects, 0 without a partner. Gain: over {base}, on the same objects. Intervals: "
                "BCa bootstrap over groups of cases (not given for fewer than six, nor where all agree), the same draws for "
                "all arms; about these trained networks. No test and no correction."
            ),
        ),
        data=rates,
    )


def _gain(row: dict, name: str, digits: int) -> Cell:
    if math.isnan(row[f"{name}_gain"]):
        return Cell(text="baseline", value=math.nan)
    limits = (row[f"{name}_gain_low"], row[f"{name}_gain_high"])
    return difference(row[f"{name}_gain"], digits, limits=limits)
