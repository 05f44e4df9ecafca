"""Records of a study made in memory, frame by frame, so that the right answer is known by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from make_study import make_manifest

from reports.document import SavedFigure
from reports.feature_map_file import FeatureMaps
from reports.figures import Plot
from reports.records import StudyRecords
from unetpp.budget import count_parameters
from unetpp.records import ArmEntry, StudyManifest
from unetpp.spec import GridSpec

_RUN = ["arm", "label", "deep_supervision", "fold", "seed", "primary_output", "num_parameters", "macs", "seconds"]  # fmt: skip
_COLUMNS = {
    "runs": _RUN,
    "cases": ["arm", "fold", "seed", "case", "group", "output", "label", "tp", "fp", "fn", "tn", "judged"],
    "surfaces": ["arm", "fold", "seed"],
    "objects": ["arm", "fold", "seed", "case", "label", "group", "reference_sizes", "reference_ious"],
    "edges": ["arm", "fold", "seed", "edge", "case", "group", "label", "tp", "fp", "fn", "tn"],
    "traces": ["arm", "fold", "seed", "quantity", "place", "epoch", "value"],
    "curves": ["arm", "fold", "seed", "epoch"],
    "latencies": ["network", "arm"],
}  # fmt: skip


def make_arm(
    name: str, spec: GridSpec, *, label: str = "", levels: Mapping[str, str] | None = None
) -> ArmEntry:
    """A promised arm."""
    return ArmEntry(
        name=name,
        label=label or name,
        deep_supervision=spec.deep_supervision,
        spec_id=spec.id,
        spec=spec.to_json(),
        num_parameters=count_parameters(spec),
        macs=1000,
        levels=dict(levels or {}),
        training_memory=2**20,
    )


def promise(
    arms: Sequence[ArmEntry], *, baseline: str, num_folds: int = 5, **changes: Any
) -> StudyManifest:
    """A manifest with these arms."""
    manifest = make_manifest(num_folds=num_folds)
    return replace(manifest, arms=tuple(arms), baseline=baseline, **changes)


def make_records(
    manifest: StudyManifest,
    *,
    feature_maps: FeatureMaps | None = None,
    **frames: Any,
) -> StudyRecords:
    """Records with these frames, empty ones for the rest; repeated texts are categories."""
    full = {name: frames.get(name, pd.DataFrame(columns=c)) for name, c in _COLUMNS.items()}
    for name, frame in full.items():
        texts = [
            c for c in ("arm", "case", "group", "output", "edge", "quantity", "place") if c in frame
        ]
        if name not in ("runs", "curves", "latencies"):
            full[name] = frame.astype(dict.fromkeys(texts, "category"))
    return StudyRecords(
        manifest=manifest,
        invocations=(),
        missing=(),
        overlays=None,
        feature_maps=feature_maps,
        **full,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip


def case_row(
    arm: str,
    case: str,
    *,
    tp: int,
    fp: int = 0,
    fn: int = 0,
    fold: int = 0,
    seed: int = 0,
    group: str = "",
    output: str = "L4",
    judged: bool = True,
) -> dict[str, Any]:
    """One row of `StudyRecords.cases`."""
    return {
        "arm": arm, "fold": fold, "seed": seed, "case": case, "group": group or case,
        "output": output, "label": 1, "tp": tp, "fp": fp, "fn": fn, "tn": 10_000, "judged": judged,
    }  # fmt: skip


def at(frame: pd.DataFrame, row: Any, column: Any = slice(None)) -> Any:
    """What a frame holds under a key of its index, and in a column; a type checker cannot know."""
    return frame.loc[row, column]


def undrawn(plot: Plot[StudyRecords], records: StudyRecords, folder: Path) -> SavedFigure:
    """In place of `save_figure` where a test looks at the words alone: drawing takes seconds."""
    del folder
    return SavedFigure(
        name=plot.name,
        title=plot.title,
        caption=plot.caption(records, plot.data(records)),
        files=(),
    )
