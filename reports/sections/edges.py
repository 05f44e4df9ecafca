"""Which single skip matters, with and without training again?"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from reports.case_table import case_places
from reports.cells import blank, decimals, difference, probability, words
from reports.document import Cell, Column, Section, Table
from reports.figures import Plot, save_figure
from reports.paired_tests import groups_note, runs_note, unit_word
from reports.pairs import empty_words
from reports.plots.edge_importance import (
    both_caption,
    both_of,
    caption,
    draw_both_losses,
    draw_edge_losses,
    edge_losses,
    told,
)
from reports.records import StudyRecords
from reports.scores import primary_cases
from unetpp.spec import GridSpec


def section(study: StudyRecords, folder: Path) -> Section | None:
    """Score lost per skip; None where no skip was taken out in either way."""
    frame = edge_losses(study)
    if frame.empty:
        return None
    both = both_of(frame)
    plots: list[Plot[StudyRecords]] = [
        Plot(
            name="edge_importance",
            title="What every skip is worth",
            data=lambda _: frame,
            draw=draw_edge_losses,
            caption=caption,
        )
    ]
    if len(both):
        plots.append(
            Plot(
                name="edge_losses",
                title="Taken out against trained without",
                data=lambda _: both,
                draw=draw_both_losses,
                caption=both_caption,
            )
        )
    return Section(
        name="edges",
        title="Single skips",
        paragraphs=(_about(study, frame),),
        answer=tuple(_found(frame)),
        tables=(_table(study, frame),),
        figures=tuple(save_figure(plot, study, folder) for plot in plots),
    )


def _about(study: StudyRecords, frame: pd.DataFrame) -> str:
    base = study.titles[study.manifest.baseline]
    lines = [f"Dice that {base} loses without one of its skips."]
    if (frame["way"] == "cut").any():
        lines.append(
            "Taken out: the skip's share of the first convolution is left out of the trained "
            "network and nothing is trained again, so that the rest cannot make up for it: this "
            "shows what a network came to rely on."
        )
    if (frame["way"] == "trained").any():
        lines.append(
            "Trained without it: what a network without the skip reaches. It is also smaller by "
            "the weights of that skip."
        )
    return " ".join(lines)


def _found(frame: pd.DataFrame) -> list[str]:
    lines: list[str] = []
    starts = {"cut": "Taken out of the trained networks", "trained": "In networks trained without"}
    for way, rows in frame.groupby("way", sort=False):
        tested = int(rows["p_holm"].notna().sum())
        start = starts[str(way)]
        if not tested:
            lines.append(f"{start}: no skip could be tested.")
            continue
        known = rows[told(rows)]
        lost = known[known["loss"] > 0].sort_values("loss", ascending=False)
        won = known[known["loss"] < 0]
        text = f"{start}: of {tested} skips, {len(lost) or 'none'} lose Dice significantly"
        if len(lost):
            text += f", most {lost['edge'].iloc[0]} ({lost['loss'].iloc[0]:.3f})"
        if len(won):
            text += f"; {len(won)} gain Dice significantly ({', '.join(won['edge'])})"
        lines.append(f"{text}; {tested - len(known)} cannot be told from zero.")
    return lines


def _table(study: StudyRecords, frame: pd.DataFrame) -> Table:
    ways = [way for way in ("cut", "trained") if (frame["way"] == way).any()]
    digits = decimals((frame["high"] - frame["low"]) / 2, least=3, most=4)
    cells = {(row["edge"], row["way"]): row for row in frame.to_dict("records")}
    titles = {"cut": "taken out", "trained": "trained without"}
    columns = [Column(title="Skip", align="left")]
    for way in ways:
        columns += [Column(title=f"Dice lost, {titles[way]} [95 %]"), Column(title="Holm p")]
    rows = tuple(
        (words(edge), *(cell for way in ways for cell in _pair(cells.get((edge, way)), digits)))
        for edge in frame["edge"].drop_duplicates()
    )
    notes = [
        (
            "Dice with the skip less Dice without it: positive where the skip helps. "
            f"{empty_words(study)}"
        )
    ]
    if "cut" in ways:
        places = case_places(study, primary_cases(study))
        notes.append(f"Taken out: case by case, mean over seeds. {groups_note(unit_word(places))}")
    if "trained" in ways:
        num = int(frame.loc[frame["way"] == "trained", "num"].max())
        notes.append(f"Trained without: {runs_note(num, study.test_train_ratio)}")
    notes += _more_lost(study, list(frame["edge"].drop_duplicates()))
    notes.append(f"Holm's correction: over the {len(rows)} skips, each column for itself.")
    return Table(
        name="edges",
        title="Dice lost without each single skip",
        columns=tuple(columns),
        rows=rows,
        notes=tuple(notes),
        data=frame,
    )


def _more_lost(study: StudyRecords, edges: list[str]) -> list[str]:
    """Without some skips a node leads nowhere and goes too."""
    spec = GridSpec.from_json(study.baseline.spec)
    gone = {
        edge: len(spec.inputs)
        - len(spec.without_edge(*edge.split(">"), drop_unreachable=True).inputs)
        for edge in edges
    }
    more = [f"{edge} ({number})" for edge, number in gone.items() if number]
    if not more:
        return []
    return [f"With these skips, nodes that lead nowhere else go too (how many): {', '.join(more)}."]


def _pair(row: dict | None, digits: int) -> tuple[Cell, Cell]:
    if row is None:
        return blank(), blank()
    return (
        difference(row["loss"], digits, limits=(row["low"], row["high"])),
        probability(row["p_holm"]),
    )
