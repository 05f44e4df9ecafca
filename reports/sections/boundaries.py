"""Boundaries and objects: how far outlines are off, and how many objects are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from reports import cells, notes
from reports.boundary_scores import boundary_scores
from reports.case_means import Shown, interval_note, interval_rows, shown_cells, shown_columns
from reports.case_table import CasePlaces, case_places
from reports.comparison import moments
from reports.document import Cell, Column, Section, Table
from reports.object_scores import object_counts, precision_rows
from reports.pairs import empty_words, run_words
from reports.records import StudyRecords


def section(study: StudyRecords, folder: Path) -> Section | None:
    """Tables of distances and of objects, one a class; None where neither was recorded."""
    del folder
    surfaces, objects = study.surfaces, study.objects
    if surfaces.empty and objects.empty:
        return None
    units = sorted(map(str, surfaces["unit"].unique())) if len(surfaces) else []
    tables: list[Table] = []
    if len(units) == 1:
        tables += [
            _boundary_table(study, surfaces[mask], label, units[0])
            for label, mask in _classes(surfaces)
        ]
    tables += [_object_table(study, objects[mask], label) for label, mask in _classes(objects)]
    return Section(
        name="boundaries",
        title="Boundaries and objects",
        paragraphs=(*_paragraphs(study), *_mixed(units)),
        tables=tuple(tables),
    )


def _classes(rows: pd.DataFrame) -> list[tuple[int, pd.Series]]:
    """Every class, with the rows that are of it."""
    if rows.empty:
        return []
    return [(int(label), rows["label"] == label) for label in sorted(rows["label"].unique())]


def _paragraphs(study: StudyRecords) -> list[str]:
    lines: list[str] = []
    if len(study.surfaces):
        lines.append(
            "Overlap says little about the outline of a large object and much about that of a small "
            "one; distances say how far the outline is off. They are of the judged output."
        )
    if len(study.objects):
        lines.append(
            "Objects are connected components (over faces, not corners) of the masks, true and "
            "predicted. Objects that touch are one component, so these scores are of a semantic "
            "segmentation taken apart, not of an instance segmentation."
        )
    return lines


def _mixed(units: list[str]) -> list[str]:
    if len(units) < 2:
        return []
    return [
        (
            f"The distances are in {' and '.join(units)}, which no mean may mix: no table of distances is "
            "given."
        )
    ]


def _boundary_table(study: StudyRecords, rows: pd.DataFrame, label: int, unit: str) -> Table:
    places, scores = case_places(study, rows), boundary_scores(rows)
    means = {name: places.means(values) for name, values in scores.scores.items()}
    frame = interval_rows(study, places, means, {})
    counts = pd.DataFrame({"imputed": scores.imputed, "both_empty": scores.both_empty})
    by_arm = counts.groupby(rows["arm"].to_numpy().astype(object)).sum()
    frame = frame.merge(by_arm, left_on="arm", right_index=True, how="left")
    shown = (
        Shown(
            name="hd95",
            title=f"HD95, {_many(unit)}",
            better="lower",
            least=2,
            most=3,
            compared=True,
        ),
        Shown(
            name="assd", title=f"ASSD, {_many(unit)}", better="lower", least=2, most=3, narrow=False
        ),
        Shown(name="nsd", title="NSD", better="higher", compared=True),
    )
    lines = shown_cells(study, frame, shown, ranked=_same_cases(places))
    several, name = notes.several_classes(study), notes.class_name(study, label)
    return Table(
        name=f"boundaries_{label}" if several else "boundaries",
        title=f"Distances between boundaries{f', class {name}' if several else ''}",
        columns=(
            Column(title="Arm", align="left"),
            *shown_columns(shown),
            Column(
                title="Imputed",
                better="lower",
                narrow=False,
                explained="case and run with one empty mask",
            ),
        ),
        rows=tuple(
            (cells.words(study.titles[row["arm"]]), *line, cells.count(row["imputed"]))
            for row, line in zip(frame.to_dict("records"), lines, strict=True)
        ),
        notes=(*_boundary_notes(rows, unit, counts), interval_note(study, compared=True)),
        data=frame,
    )


def _boundary_notes(rows: pd.DataFrame, unit: str, counts: pd.DataFrame) -> list[str]:
    low, high = float(rows["tolerance"].min()), float(rows["tolerance"].max())
    tolerance = f"{low:g}" if low == high else f"{low:g} to {high:g}, by case,"
    return [
        (
            f"HD95: the larger of the two directed 95th percentiles of the distances between the "
            f"boundaries; ASSD: the mean over the pixels of both boundaries; both in {_many(unit)}. NSD: share "
            f"of the pixels of both boundaries within {tolerance} {unit if tolerance == '1' else _many(unit)} of the other (every pixel "
            "counts the same)."
        ),
        (
            f"Where one mask alone is empty the distance is the diagonal of the image and NSD is 0: "
            f"{int(counts['imputed'].sum())} of {len(counts):,} (case and run) over all arms. Where "
            f"both are empty there is nothing to measure: {int(counts['both_empty'].sum())} are left "
            "out."
        ),
    ]


def _many(unit: str) -> str:
    return "pixels" if unit == "pixel" else unit


def _object_table(study: StudyRecords, rows: pd.DataFrame, label: int) -> Table:
    places, counts = case_places(study, rows), object_counts(rows, empty=study.empty)
    hits, overlap, num = (
        places.sums(values) for values in (counts.hits, counts.overlap, counts.num_objects)
    )
    frame = interval_rows(
        study,
        places,
        {"dsb": places.means(counts.dsb)},
        {"pq": (2 * overlap, num), "sq": (overlap, hits), "rq": (2 * hits, num)},
    )
    runs = precision_rows(study, rows)
    frame = frame.merge(_precision(runs), on="arm", how="left")
    shown = (
        Shown(name="dsb", title="DSB score", better="higher", compared=True),
        Shown(name="pq", title="PQ", better="higher", compared=True),
        Shown(name="sq", title="SQ", better="higher", narrow=False),
        Shown(name="rq", title="RQ", better="higher", narrow=False),
    )
    ranked = _same_cases(places)
    lines = shown_cells(study, frame, shown, ranked=ranked)
    several, name = notes.several_classes(study), notes.class_name(study, label)
    precisions = {key: cells.places(frame[f"{key}_mean"], ranked=ranked) for key in ("ap", "ap50")}
    return Table(
        name=f"objects_{label}" if several else "objects",
        title=f"Objects{f', class {name}' if several else ''}",
        columns=(
            Column(title="Arm", align="left"),
            *shown_columns(shown),
            Column(title="AP", better="higher", narrow=False),
            Column(title="AP50", better="higher", narrow=False),
        ),
        rows=tuple(
            (cells.words(study.titles[row["arm"]]), *line, *_precision_cells(row, k, precisions))
            for k, (row, line) in enumerate(zip(frame.to_dict("records"), lines, strict=True))
        ),
        notes=(*_object_notes(study, counts.num_objects), interval_note(study, compared=True)),
        data=frame,
    )


def _precision(runs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "arm": arm,
                **moments("ap", kept["ap"].dropna()),
                **moments("ap50", kept["ap50"].dropna()),
            }
            for arm, kept in runs.groupby("arm", sort=False)
        ]
    )


def _precision_cells(row: dict, place: int, ranks: dict[str, list[cells.Rank]]) -> list[Cell]:
    return [
        cells.number(row[f"{name}_mean"], 3, sd=row[f"{name}_sd"], rank=ranks[name][place])
        for name in ("ap", "ap50")
    ]


def _object_notes(study: StudyRecords, num_objects: np.ndarray) -> list[str]:
    return [
        (
            "DSB score (Data Science Bowl 2018): per case the mean over the IoU thresholds 0.5, 0.55 "
            ".. 0.95 of TP / (TP + FP + FN), a pair of objects being a hit above the threshold; then the "
            "mean over cases. It needs no confidence and is not COCO's AP. "
            f"{empty_words(study)} {int(np.isnan(num_objects).sum() + (num_objects == 0).sum())} (case "
            "and run) over all arms are without any object."
        ),
        (
            "PQ = SQ x RQ (Kirillov et al. 2019), pooled over the objects of all cases: SQ the mean IoU "
            "of the hits, RQ = TP / (TP + FP / 2 + FN / 2), a hit above 0.5."
        ),
        (
            "AP and AP50: COCO's average precision over the thresholds 0.5 .. 0.95 and at 0.5, the "
            "confidence of an object being the mean probability of its pixels; of each held-out fold, "
            f"then mean ± standard deviation over {run_words(study)}."
        ),
    ]


def _same_cases(places: CasePlaces) -> bool:
    """Whether every arm that has cases has them all, so that means rank."""
    recorded = places.sums(np.ones(len(places.places))) > 0
    return bool(recorded[:, recorded.any(axis=0)].all())
