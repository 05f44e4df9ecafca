"""What the heads of the deep-supervised arms yield, one by one."""

from __future__ import annotations

from pathlib import Path

from reports import cells, notes
from reports.document import Column, Section, Table
from reports.heads import head_rows
from reports.records import StudyRecords


def section(study: StudyRecords, folder: Path) -> Section | None:
    """The table of heads; None without deep supervision."""
    del folder
    rows = head_rows(study)
    if rows.empty:
        return None
    lines = tuple(
        (
            cells.words(row["label"]),
            cells.words(row["output"], strong=bool(row["primary"])),
            cells.parameters(row["num_parameters"]),
            cells.macs(row["macs"]),
            cells.number(row["dice_mean"], 3, sd=row["dice_sd"]),
            cells.number(row["iou_mean"], 3, sd=row["iou_sd"]),
        )
        for row in rows.to_dict("records")
    )
    table = Table(
        name="heads",
        title="Heads of the deep-supervised arms",
        columns=(
            Column(title="Arm", align="left"),
            Column(title="Output", align="left"),
            Column(title="Params", better="lower"),
            Column(title="MACs", better="lower", explained="multiply-accumulates of one image"),
            Column(title="Dice", better="higher"),
            Column(title="IoU", better="higher"),
        ),
        rows=lines,
        notes=(
            (
                "L1 to Ld: the output of one head, with the parameters and multiply-accumulates of the "
                "network pruned to it; mean: the average of all heads. Bold: the output by which the arm "
                "is judged."
            ),
            f"Dice and IoU: {notes.averaging(study, rows)} These rows are not tested.",
        ),
        data=rows,
    )
    return Section(name="heads", title="Heads", tables=(table,))
