"""What do the maps along the top skip path show?"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from reports.cells import blank, number, words
from reports.document import Column, Section, Table
from reports.figures import Plot, save_figure
from reports.plots.feature_maps import (
    caption,
    draw_feature_maps,
    draw_follows,
    follow_rows,
    follows_caption,
    mean_follows,
)
from reports.records import StudyRecords


def section(study: StudyRecords, folder: Path) -> Section | None:
    """Maps and their numbers; None where none were kept."""
    frame = follow_rows(study)
    if frame.empty:
        return None
    means = mean_follows(frame)
    plots: list[Plot[StudyRecords]] = [
        Plot(
            name="feature_maps",
            title="Maps along the top skip path",
            data=lambda _: frame,
            draw=draw_feature_maps,
            caption=caption,
            suffixes=(".png", ".pdf"),
        )
    ]
    if len(means):
        plots.append(
            Plot(
                name="follows",
                title="How well the nodes of level 0 follow the truth",
                data=lambda _: means,
                draw=draw_follows,
                caption=follows_caption,
            )
        )
    return Section(
        name="feature_maps",
        title="Feature maps",
        paragraphs=(
            (
                "The nodes X[0,0] to X[0,d] are at full resolution, from the encoder's first to the "
                "decoder's last. How well the best channel of a node follows the truth is a number "
                "beside the pictures; it says nothing of what the other channels are for."
            ),
        ),
        tables=(_table(study, means),) if len(means) else (),
        figures=tuple(save_figure(plot, study, folder) for plot in plots),
    )


def _table(study: StudyRecords, means: pd.DataFrame) -> Table:
    columns = sorted(means["column"].unique())
    cells = {(row["arm"], row["column"]): row for row in means.to_dict("records")}
    rows = tuple(
        (
            words(study.titles[arm]),
            *(
                number(cells[arm, j]["mean"], 2, limits=(cells[arm, j]["low"], cells[arm, j]["high"]))
                if (arm, j) in cells
                else blank()
                for j in columns
            ),
        )
        for arm in means["arm"].unique()
    )  # fmt: skip
    return Table(
        name="feature_maps",
        title="How well the best channel of a node follows the truth",
        columns=(
            Column(title="Arm", align="left"),
            *(Column(title=f"X[0,{column}] [range]", better="higher") for column in columns),
        ),
        rows=rows,
        notes=(
            (
                "Largest absolute point-biserial correlation of any channel with the mask, mean "
                f"over {int(means['num_cases'].max())} cases; brackets: range over these cases, no "
                "interval. The cases were chosen by score and are few: no test. The best "
                "of more channels is higher by chance."
            ),
        ),
        data=means,
    )
