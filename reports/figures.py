"""How figures look and are saved.

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

from reports.document import SavedFigure
from reports.escaping import csv_text
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
        _settle(figure)
        for path in files[:-1]:
            figure.savefig(path, metadata=dict.fromkeys(_DATED[path.suffix]))
    files[-1].write_text(csv_text(data), encoding="utf-8", newline="\n")


def _settle(figure: Figure) -> None:
    """Lay the figure out once: every file would do it again, which takes most of the time."""
    engine = figure.get_layout_engine()
    if engine is not None and figure.axes:
        engine.execute(figure)
        figure.set_layout_engine("none")
