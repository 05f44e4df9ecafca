"""All figures of a report: how they look, how they are saved, and which there are.

Every figure is a data function (its frame is saved as CSV beside the picture) and a drawing
function; they live in `reports.plots`, one module a figure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import matplotlib as mpl
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from reports.depth import depth_curves, depth_rows
from reports.document import SavedFigure
from reports.escaping import csv_text
from reports.overlays import RULE
from reports.plots import (
    accuracy_latency,
    depth_per_dataset,
    learning_curves,
    overlay_grid,
    paired_differences,
)
from reports.records import StudyRecords
from unetpp.errors import UserError

_STYLE = Path(__file__).with_name("style.mplstyle")
# Neither the day nor the version of matplotlib enters a file.
_DATED = {
    ".svg": ("Date", "Creator"),
    ".pdf": ("CreationDate", "Creator", "Producer"),
    ".png": ("Software",),
}


Records = TypeVar("Records")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot(Generic[Records]):
    """How one figure is made from records.

    Attributes:
        name: of its files, without suffix.
        title: heading on the page.
        data: what it shows; an empty frame where there is nothing to draw.
        draw: the picture of that.
        caption: of the picture.
        suffixes: of the files; the first goes into the page.
    """

    name: str
    title: str
    data: Callable[[Records], pd.DataFrame]
    draw: Callable[[Records, pd.DataFrame], Figure]
    caption: Callable[[Records, pd.DataFrame], str]
    suffixes: tuple[str, ...] = (".svg", ".pdf", ".png")


_PLOTS: tuple[Plot[StudyRecords], ...] = (
    Plot(
        name="paired_differences",
        title="Differences from the baseline",
        data=paired_differences.paired_differences,
        draw=paired_differences.draw_paired_differences,
        caption=paired_differences.caption,
    ),
    Plot(
        name="accuracy_latency",
        title="Accuracy versus latency",
        data=accuracy_latency.accuracy_latency,
        draw=accuracy_latency.draw_accuracy_latency,
        caption=accuracy_latency.caption,
    ),
    Plot(
        name="learning_curves",
        title="Learning curves",
        data=learning_curves.learning_curves,
        draw=learning_curves.draw_learning_curves,
        caption=learning_curves.caption,
    ),
    Plot(
        name="overlays",
        title="Predictions",
        data=overlay_grid.overlay_scores,
        draw=overlay_grid.draw_overlay_grid,
        caption=lambda study, data: f"{overlay_grid.caption(study, data)} {RULE}",
        suffixes=(".png", ".pdf"),
    ),
)

# Of studies whose arms are depths; on the page it comes first.
_DEPTHS: Plot[StudyRecords] = Plot(
    name="depth_per_dataset",
    title="Dice over depth",
    data=lambda study: depth_rows([(str(study.manifest.dataset["name"]), study)]),
    draw=lambda _, data: depth_per_dataset.draw_depth_per_dataset(data),
    caption=lambda _, __: depth_per_dataset.caption(),
)


def save_figures(study: StudyRecords, folder: Path) -> tuple[SavedFigure, ...]:
    """Draw every figure that fits the study and has data; files of the others are removed.

    A figure that must be refused (timings of two machines) gives its sentence instead: it is no
    reason to withhold the rest of the report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plots = (_DEPTHS, *_PLOTS) if depth_curves(study) else _PLOTS
    return tuple(save_figure(plot, study, folder) for plot in plots)


def save_figure(plot: Plot[Records], records: Records, folder: Path) -> SavedFigure:
    """Draw one figure, with the CSV of what it shows, or remove its files where it has no data."""
    for suffix in (*plot.suffixes, ".csv"):
        (folder / f"{plot.name}{suffix}").unlink(missing_ok=True)
    try:
        data = plot.data(records)
        refusal = "" if len(data) else "Nothing was recorded for this figure."
    except UserError as error:
        data, refusal = pd.DataFrame(), f"Not drawn: {error}."
    if refusal:
        return SavedFigure(name=plot.name, title=plot.title, caption="", files=(), refusal=refusal)
    files = tuple(folder / f"{plot.name}{suffix}" for suffix in (*plot.suffixes, ".csv"))
    save_drawing(lambda: plot.draw(records, data), data, files)
    return SavedFigure(
        name=plot.name, title=plot.title, caption=plot.caption(records, data), files=files
    )


def save_drawing(draw: Callable[[], Figure], data: pd.DataFrame, files: Sequence[Path]) -> None:
    """Draw in the one look of all figures, into all files but the last: that is the CSV of `data`."""
    with mpl.rc_context(fname=_STYLE):
        figure = draw()
        FigureCanvasAgg(figure)
        for path in files[:-1]:
            figure.savefig(path, metadata=dict.fromkeys(_DATED[path.suffix]))
    files[-1].write_text(csv_text(data), encoding="utf-8", newline="\n")
