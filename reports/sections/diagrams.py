"""What do these networks look like?"""

from __future__ import annotations

from pathlib import Path

from reports.document import Section
from reports.figures import Plot, save_figure
from reports.plots.evolution import (
    draw_evolution,
    draw_prunings,
    evolution,
    evolution_caption,
    pruned_arm,
    prunings,
    prunings_caption,
)
from reports.records import StudyRecords

_GRIDS: Plot[StudyRecords] = Plot(
    name="grids",
    title="The grids of the study",
    data=evolution,
    draw=draw_evolution,
    caption=evolution_caption,
)
_PRUNED: Plot[StudyRecords] = Plot(
    name="prunings",
    title="Branch pruning",
    data=prunings,
    draw=draw_prunings,
    caption=prunings_caption,
)


def section(study: StudyRecords, folder: Path) -> Section | None:
    """The distinct grids; where nothing is trained, also what branch pruning leaves."""
    # Studies that train show what their prunings score in a section of its own.
    also = not study.manifest.trains and pruned_arm(study) is not None
    plots = (_GRIDS, _PRUNED) if also else (_GRIDS,)
    return Section(
        name="diagrams",
        title="Networks",
        figures=tuple(save_figure(plot, study, folder) for plot in plots),
    )
