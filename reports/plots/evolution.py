"""The grids of a study side by side, in the manner of the paper's figure 1, and their prunings."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from reports.plots.grid_diagram import GridParts, draw_small, grid_parts, legend_of
from reports.records import StudyRecords
from unetpp.grid import prune_to_head
from unetpp.records import ArmEntry
from unetpp.spec import GridSpec

_COLUMNS = 4
_PANEL = 1.75  # inches


def distinct_grids(study: StudyRecords) -> dict[str, GridSpec]:
    """Titles of the arms that share a grid, joined -> its spec, in the promised order.

    Networks share a grid when nodes, in-edges, heads and what is read are the same.
    """
    found: dict[object, tuple[list[str], GridSpec]] = {}
    for arm in study.arms:
        spec = GridSpec.from_json(arm.spec)
        key = spec.inputs, spec.heads, spec.inference
        found.setdefault(key, ([], spec))[0].append(study.titles[arm.name])
    return {", ".join(dict.fromkeys(titles)): spec for titles, spec in found.values()}


def grid_elements(panels: dict[str, GridParts]) -> pd.DataFrame:
    """One row an element of a panel: panel, element (node, edge, head), node or source and target,
    kind, state.
    """
    rows: list[dict[str, object]] = []
    for panel, parts in panels.items():
        for row in parts.nodes.to_dict("records"):
            kept = {name: row[name] for name in ("node", "kind", "state", "width")}
            rows.append({"panel": panel, "element": "node", **kept})
        for row in parts.edges.to_dict("records"):
            kept = {name: row[name] for name in ("source", "target", "kind", "state")}
            rows.append({"panel": panel, "element": "edge", **kept})
        for row in parts.heads.to_dict("records"):
            rows.append(
                {"panel": panel, "element": "head", "node": row["node"], "state": row["state"]}
            )
    return pd.DataFrame(rows)  # fmt: skip


def evolution(study: StudyRecords) -> pd.DataFrame:
    """`grid_elements` of the distinct grids."""
    return grid_elements(_panels(distinct_grids(study)))


def _panels(specs: dict[str, GridSpec]) -> dict[str, GridParts]:
    return {title: grid_parts(spec) for title, spec in specs.items()}


def draw_evolution(study: StudyRecords, frame: pd.DataFrame) -> Figure:
    """A small panel a grid, at most four a row."""
    del frame
    specs = distinct_grids(study)
    return _draw_panels(list(_panels(specs).items()), max(spec.depth for spec in specs.values()))


def _draw_panels(panels: Sequence[tuple[str, GridParts]], depth: int) -> Figure:
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    lines = max(title.count("\n") + 1 for title in map(_folded, dict(panels)))
    shape = (depth + 1.7) / (depth + 0.8)
    size = (_PANEL * max(columns, 2), rows * (_PANEL * shape + 0.15 * lines) + 0.4)
    figure = Figure(figsize=size)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (title, parts) in zip(grid.flat, panels, strict=False):
        draw_small(axes, parts, depth=depth)
        axes.set_title(_folded(title), fontsize=8, pad=2)
    figure.legend(
        handles=[h for h in legend_of(*dict(panels).values()) if h.get_label() != "empty place"],
        loc="outside lower center", ncols=3 if columns < _COLUMNS else 6, fontsize=8,
        handlelength=2, columnspacing=1.2,
    )  # fmt: skip
    return figure


def _folded(title: str) -> str:
    return textwrap.fill(title, 26)


def evolution_caption(study: StudyRecords, frame: pd.DataFrame) -> str:
    """What the panels are."""
    num = frame["panel"].nunique()
    same = len(study.arms) - num
    shared = " Arms that differ in widths or training alone share a panel." if same else ""
    return (
        f"The {num} distinct grids of the study's {len(study.arms)} arms, drawn from their "
        f"descriptions: level 0 on top, the encoder down the left side, heads above.{shared}"
        if num > 1
        else "The grid that all arms share, drawn from its description: level 0 on top, the "
        "encoder down the left side, heads above."
    )


def pruned_arm(study: StudyRecords) -> ArmEntry | None:
    """The deep-supervised arm with the most in-edges, from which figure 2 prunes; or None."""
    found = [arm for arm in study.arms if arm.deep_supervision]
    return max(
        found,
        key=lambda arm: sum(len(e.sources) for e in GridSpec.from_json(arm.spec).inputs),
        default=None,
    )


def prunings(study: StudyRecords) -> pd.DataFrame:
    """`grid_elements` of the whole network and of its prunings; empty without such an arm."""
    arm = pruned_arm(study)
    return pd.DataFrame() if arm is None else grid_elements(_pruned(study, arm))


def _pruned(study: StudyRecords, arm: ArmEntry) -> dict[str, GridParts]:
    full = GridSpec.from_json(arm.spec)
    return {
        f"{study.titles[arm.name]} L{head}": grid_parts(prune_to_head(full, head), full)
        for head in reversed(full.heads)
    }


def draw_prunings(study: StudyRecords, frame: pd.DataFrame) -> Figure:
    """A panel a head, the deepest first."""
    del frame
    arm = pruned_arm(study)
    assert arm is not None
    return _draw_panels(list(_pruned(study, arm).items()), GridSpec.from_json(arm.spec).depth)


def prunings_caption(study: StudyRecords, frame: pd.DataFrame) -> str:
    """What is grey."""
    del frame
    arm = pruned_arm(study)
    assert arm is not None
    return (
        f"{study.titles[arm.name]} pruned to each of its heads: what no head needs any more is "
        "grey and is neither kept nor computed (branch pruning, section III-D of the UNet++ paper)."
    )
