"""All figures of a report: how they look, how they are saved, and which there are.

Every figure is a data function (its frame is saved as CSV beside the picture) and a drawing
function; they live in `reports.plots`, one module a figure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from reports.overlays import RULE
from reports.plots import accuracy_latency, learning_curves, overlay_grid, paired_differences
from reports.records import StudyRecords
from unetpp.errors import UserError

_STYLE = Path(__file__).with_name("style.mplstyle")


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedFigure:
    """One figure of the report.

    Attributes:
        name: of its files, without suffix.
        title: heading on the page.
        caption: what is drawn, with the machine, the rule or the interval.
        files: what was written, picture first; empty when it was not drawn.
        refusal: why it was not drawn, or "".
    """

    name: str
    title: str
    caption: str
    files: tuple[Path, ...]
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plot:
    name: str
    title: str
    data: Callable[[StudyRecords], pd.DataFrame]
    draw: Callable[[StudyRecords, pd.DataFrame], Figure]
    caption: Callable[[StudyRecords, pd.DataFrame], str]
    suffixes: tuple[str, ...] = (".svg", ".png")


_PLOTS = (
    _Plot(
        name="paired_differences",
        title="Differences from the baseline",
        data=paired_differences.paired_differences,
        draw=paired_differences.draw_paired_differences,
        caption=paired_differences.caption,
    ),
    _Plot(
        name="accuracy_latency",
        title="Accuracy versus latency",
        data=accuracy_latency.accuracy_latency,
        draw=accuracy_latency.draw_accuracy_latency,
        caption=accuracy_latency.caption,
    ),
    _Plot(
        name="learning_curves",
        title="Learning curves",
        data=learning_curves.learning_curves,
        draw=learning_curves.draw_learning_curves,
        caption=learning_curves.caption,
    ),
    _Plot(
        name="overlays",
        title="Predictions",
        data=overlay_grid.overlay_scores,
        draw=overlay_grid.draw_overlay_grid,
        caption=lambda study, data: f"{overlay_grid.caption(study, data)} {RULE}",
        suffixes=(".png",),
    ),
)


def save_figures(study: StudyRecords, folder: Path) -> tuple[SavedFigure, ...]:
    """Draw every figure for which the study has data; files of the others are removed.

    A figure that must be refused (timings of two machines) gives its sentence instead: it is no
    reason to withhold the rest of the report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(_save(plot, study, folder) for plot in _PLOTS)


def _save(plot: _Plot, study: StudyRecords, folder: Path) -> SavedFigure:
    for suffix in (*plot.suffixes, ".csv"):
        (folder / f"{plot.name}{suffix}").unlink(missing_ok=True)
    try:
        data = plot.data(study)
        refusal = "" if len(data) else "Nothing was recorded for this figure."
    except UserError as error:
        data, refusal = pd.DataFrame(), f"Not drawn: {error}."
    if refusal:
        return SavedFigure(name=plot.name, title=plot.title, caption="", files=(), refusal=refusal)
    files = tuple(folder / f"{plot.name}{suffix}" for suffix in (*plot.suffixes, ".csv"))
    with mpl.rc_context(fname=_STYLE):
        figure = plot.draw(study, data)
        FigureCanvasAgg(figure)
        for path in files[:-1]:
            # Neither the day nor the version of matplotlib enters the file.
            key = "Date" if path.suffix == ".svg" else "Software"
            figure.savefig(path, metadata={key: None})
    data.to_csv(files[-1], index=False, lineterminator="\n")
    return SavedFigure(
        name=plot.name, title=plot.title, caption=plot.caption(study, data), files=files
    )
