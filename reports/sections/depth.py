"""How deep must a network be? Table I of the paper: every depth trained alone, beside UNet^e."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from reports import cells
from reports.depth import depth_curves, depth_rows, ensemble_rows, ensembles
from reports.depth_texts import depth_verdict
from reports.document import Cell, Column, Section, Table
from reports.figures import Plot, save_figure
from reports.notes import definitions, empty_masks
from reports.pairs import NO_INTERVAL, interval_words, mean_of, run_words, within
from reports.plots import depth_per_dataset
from reports.records import StudyRecords
from reports.scores import judged_scores, scored_folds
from reports.statistics import holm

_COLUMNS = (
    Column(title="Network", align="left"),
    Column(title="DS", align="left", explained="deep supervision"),
    Column(title="Params", better="lower"),
    Column(title="MACs", better="lower", narrow=False, explained="multiply-accumulates"),
    Column(title="Dice [95 %]", better="higher"),
    Column(title="IoU [95 %]", better="higher", narrow=False),
    Column(title="Delta Dice [95 %]"),
    Column(title="Holm p"),
    Column(title="By the rule", align="left"),
)
_PLOT: Plot[StudyRecords] = Plot(
    name="depth",
    title="Dice over depth",
    data=lambda study: _drawn(study),
    draw=lambda _, data: depth_per_dataset.draw_depth_per_dataset(data),
    caption=lambda _, data: depth_per_dataset.caption(data),
)


def section(study: StudyRecords, folder: Path) -> Section | None:
    """Table and figure of a study that trained a family of networks at several depths; else None.

    Args:
        study: whose records.
        folder: for the figure.
    """
    if not depth_curves(study):
        return None
    curves = depth_rows([(str(study.manifest.dataset["name"]), study)])
    return Section(
        name="depth",
        title="Depth",
        paragraphs=(
            (
                "What this shows is how deep networks of this family, trained by this recipe, must "
                "be on these data; not that a depth that cannot be told from the best equals it."
            ),
        ),
        answer=tuple(depth_verdict(curves)),
        tables=(depth_table(study),),
        figures=(save_figure(_PLOT, study, folder),),
    )


def table_rows(study: StudyRecords) -> pd.DataFrame:
    """One row a network of the table, each once, with the columns of `depth_rows`.

    With iou_mean, iou_low, iou_high, deep_supervision, title, and p_holm over all rows that are
    compared with a best depth.
    """
    frame = _drawn(study)
    # At depth 1 all families are one network; its row is that of the first.
    frame = frame.drop_duplicates("arm", ignore_index=True)
    iou = judged_scores(study, "iou")
    scores = [
        mean_of(scored_folds(iou, arm), "iou", test_train_ratio=study.test_train_ratio)
        for arm in frame["arm"]
    ]
    compared = frame["p"].mask(frame["best"].astype(bool))
    return pd.concat([frame, pd.DataFrame(scores)], axis=1).assign(
        title=[study.titles[arm] for arm in frame["arm"]],
        deep_supervision=[study.arm(arm).deep_supervision for arm in frame["arm"]],
        p_holm=holm(compared.tolist()),
    )


def depth_table(study: StudyRecords) -> Table:
    """Price and scores of every depth and of UNet^e, and their distance from the best depth."""
    rows = table_rows(study)
    compared = rows[~rows["best"].astype(bool)]
    digits = cells.num_decimals(compared)
    ranks = {name: cells.places(rows[f"{name}_mean"]) for name in ("dice", "iou")}
    return Table(
        name="depth",
        title="Every depth, trained alone, and all depths at once",
        columns=_COLUMNS,
        rows=tuple(
            _line(row, digits, ranks["dice"][place], ranks["iou"][place])
            for place, row in enumerate(rows.to_dict("records"))
        ),
        notes=_notes(study, rows),
        data=rows,
    )


def _drawn(study: StudyRecords) -> pd.DataFrame:
    """Curves and UNet^e, as the figure draws them; also empty."""
    named = [(str(study.manifest.dataset["name"]), study)]
    frames = [frame for frame in (depth_rows(named), ensemble_rows(named)) if len(frame)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _line(
    row: Mapping[Hashable, Any], digits: int, dice: cells.Rank, iou: cells.Rank
) -> tuple[Cell, ...]:
    limits = (row["delta_low"], row["delta_high"])
    tie: cells.Mark = "tie" if limits[0] <= 0 <= limits[1] and not row["best"] else ""
    says = "best" if row["best"] else ""
    if row["shallow_enough"]:
        says = f"{says}, shallow enough".removeprefix(", ")
    return (
        cells.words(row["title"]),
        cells.words("yes" if row["deep_supervision"] else "no"),
        cells.parameters(row["num_parameters"]),
        cells.macs(row["macs"]),
        cells.number(
            row["dice_mean"], digits, limits=within(row["dice_low"], row["dice_high"]), rank=dice
        ),
        cells.number(
            row["iou_mean"], digits, limits=within(row["iou_low"], row["iou_high"]), rank=iou
        ),
        cells.words("best")
        if row["best"]
        else cells.difference(row["delta_best"], digits, limits=limits, mark=tie),
        cells.blank() if row["best"] else cells.probability(row["p_holm"]),
        cells.words(says),
    )


def _notes(study: StudyRecords, rows: pd.DataFrame) -> tuple[str, ...]:
    family = int(rows["p_holm"].notna().sum())
    lines = [
        definitions(study),
        empty_masks(study),
        (
            f"Mean over the cases of a held-out fold, then over {run_words(study)}. Brackets: "
            f"{interval_words(study)}, cut at 0 and 1."
        ),
    ]
    if family == 0:
        return (*lines, NO_INTERVAL)
    whole = (
        "; of a network of all depths, minus that of the best depth of the plain networks"
        if ensembles(study)
        else ""
    )
    return (
        *lines,
        (
            "Delta: Dice minus that of the best depth of the same family (largest mean), paired by "
            f"run{whole}. Holm p: two-sided p of that test over all {family} differences of the "
            "table."
        ),
        (
            "Shallow enough: the shallowest depth whose interval of Delta holds 0. The rule reads "
            "the interval, which is not corrected for the number of depths, since a wider one would "
            "call shallower networks enough; ≈ marks by the same interval. The best of several "
            "means is a little too good, and best and shallow enough are read off the same folds."
        ),
    )
