"""What are the data, and how are they divided?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from reports.cells import NONE, count, share, words
from reports.document import Cell, Column, Section, Table
from reports.records import StudyRecords
from reports.scores import primary_cases

DATASET_COLUMNS = (
    Column(title="Data set", align="left"),
    Column(title="Cases"),
    Column(title="Groups", explained="cases that stay together, such as those of a patient"),
    Column(title="Channels", narrow=False),
    Column(title="Size", align="left", narrow=False),
    Column(title="Classes", align="left"),
    Column(title="Foreground", explained="pixels of any class over all pixels"),
    Column(title="Empty", explained="cases without foreground"),
    Column(title="Folds", align="left"),
)
_NOTES = (
    (
        "Counted on the data as they are fed, after reading and resampling. Who provides them is not "
        "known from the files and is left out."
    ),
)


def section(study: StudyRecords, folder: Path) -> Section | None:
    """The data set and its folds, which every study has."""
    del folder
    frame = fold_rows(study)
    return Section(
        name="datasets",
        title="Data",
        paragraphs=(
            f"{study.manifest.dataset['description']}".rstrip(".") + ".",
            crossing_words(study),
        ),
        tables=(dataset_table([study]), _fold_table(study, frame)),
    )


def dataset_facts(study: StudyRecords) -> dict[str, object]:
    """What is known of one data set, unrounded: name, num_cases, num_groups, channels, size, kind,
    classes, foreground_share, num_empty, num_folds, fewest and most held-out cases, hash.
    """
    data, folds = study.manifest.dataset, study.manifest.folds
    return {
        "name": data["name"],
        "num_cases": data["num_cases"],
        "num_groups": data["num_groups"],
        "channels": data["channels"],
        "size": data["size"],
        "kind": data["kind"],
        "classes": ", ".join(data["classes"]),
        "foreground_share": data["foreground_share"],
        "num_empty": data["num_empty"],
        "num_folds": folds["num_folds"],
        "fewest": min(folds["sizes"]),
        "most": max(folds["sizes"]),
        "hash": study.manifest.dataset_hash,
    }


def dataset_row(study: StudyRecords) -> tuple[Cell, ...]:
    """One row under `DATASET_COLUMNS`."""
    facts = dataset_facts(study)
    few, most = facts["fewest"], facts["most"]
    return (
        words(str(facts["name"])),
        count(float(str(facts["num_cases"]))),
        count(float(str(facts["num_groups"]))),
        count(float(str(facts["channels"]))),
        words(str(facts["size"])),
        words(str(facts["classes"])),
        share(float(str(facts["foreground_share"]))),
        count(float(str(facts["num_empty"]))),
        words(f"{facts['num_folds']} of {few if few == most else f'{few} to {most}'}"),
    )


def dataset_table(studies: Sequence[StudyRecords]) -> Table:
    """One row a data set, in the order given."""
    return Table(
        name="datasets",
        title="Data sets" if len(studies) > 1 else "Data set",
        columns=DATASET_COLUMNS,
        rows=tuple(dataset_row(study) for study in studies),
        notes=_NOTES,
        data=pd.DataFrame([dataset_facts(study) for study in studies]),
    )


def _held_out(study: StudyRecords) -> pd.DataFrame:
    """One row per (fold, case) that any run has scored: group, foreground and all pixels."""
    rows = primary_cases(study)
    if rows.empty:
        return pd.DataFrame(columns=["fold", "case", "group", "foreground", "pixels"])
    rows = rows.assign(
        foreground=rows["tp"] + rows["fn"],
        pixels=rows["tp"] + rows["fp"] + rows["fn"] + rows["tn"],
    ).astype({"case": object, "group": object})
    rows = rows.drop_duplicates(["fold", "case", "label"])
    return (
        rows.groupby(["fold", "case", "group"])
        .agg(foreground=("foreground", "sum"), pixels=("pixels", "max"))
        .reset_index()
    )


def fold_rows(study: StudyRecords) -> pd.DataFrame:
    """One row a promised fold.

    Columns: fold (from 0), num_held_out, num_trained_on (cases, as promised); num_groups,
    foreground_share, num_empty of the held-out cases, NA where no run of the fold is there.
    """
    folds, held = study.manifest.folds, _held_out(study)
    rows: list[dict[str, object]] = []
    for fold, (tested, trained) in enumerate(
        zip(folds["sizes"], folds["train_sizes"], strict=True)
    ):
        own = held[held["fold"] == fold]
        seen = len(own) > 0
        rows.append(
            {
                "fold": fold,
                "num_held_out": tested,
                "num_trained_on": trained,
                "num_groups": own["group"].nunique() if seen else None,
                "foreground_share": own["foreground"].sum() / own["pixels"].sum() if seen else None,
                "num_empty": int((own["foreground"] == 0).sum()) if seen else None,
            }
        )
    return pd.DataFrame(rows).astype(
        {"num_groups": "Int64", "foreground_share": "Float64", "num_empty": "Int64"}
    )


def num_crossing(study: StudyRecords) -> int | None:
    """Groups with a case on both sides of some fold, from the cases that were scored; None where
    none were.
    """
    held = _held_out(study)
    if held.empty:
        return None
    group_of = held.drop_duplicates("case").set_index("case")["group"]
    sizes = group_of.value_counts()
    inside = held.groupby(["fold", "group"])["case"].nunique()
    crossing = {group for (_, group), number in inside.items() if number < sizes[group]}  # pyright: ignore[reportGeneralTypeIssues]
    return len(crossing)


def crossing_words(study: StudyRecords) -> str:
    """Whether any group has cases both in training and held out, and how that is known."""
    data, folds = study.manifest.dataset, study.manifest.folds
    scheme = str(folds["scheme"]).rstrip(".")
    if folds["divides_groups"]:
        return f"Folds: {scheme}. This scheme divides groups on purpose."
    if data["num_groups"] == data["num_cases"]:
        return f"Folds: {scheme}. Every case is a group of its own, as far as is known."
    column = f" (column {folds['group']})" if folds["group"] else ""
    crossing = num_crossing(study)
    if crossing is None:
        return (
            f"Folds: {scheme}. Groups{column} are kept together; no case was scored, so that this "
            "was not checked again on the records."
        )
    if crossing:
        return (
            f"Folds: {scheme}. {crossing} groups{column} have cases on both sides of a fold: what "
            "was trained has seen them."
        )
    return (
        f"Folds: {scheme}. No group{column} crosses a fold: checked on the {data['num_groups']} "
        "groups of the scored cases."
    )


def _fold_table(study: StudyRecords, frame: pd.DataFrame) -> Table:
    rows = tuple(
        (
            words(str(row["fold"] + 1)),
            count(row["num_held_out"]),
            _known(row["num_groups"]),
            count(row["num_trained_on"]),
            Cell(text=NONE, value=float("nan"))
            if pd.isna(row["foreground_share"])
            else share(float(row["foreground_share"])),
            _known(row["num_empty"]),
        )
        for row in frame.to_dict("records")
    )
    aside = int(study.manifest.folds.get("num_set_aside", 0))
    notes = ["Groups, foreground and empty references are those of the held-out cases."]
    if frame["num_groups"].isna().any():
        notes.append(f"{NONE}: no run of this fold has been scored.")
    if aside:
        notes.append(f"{aside} cases are set aside and are in no fold.")
    return Table(
        name="folds",
        title="Folds",
        columns=(
            Column(title="Fold", align="left"),
            Column(title="Held out"),
            Column(title="Groups"),
            Column(title="Trained on"),
            Column(title="Foreground"),
            Column(title="Empty"),
        ),
        rows=rows,
        notes=tuple(notes),
        data=frame,
    )


def _known(value: object) -> Cell:
    return count(float("nan") if pd.isna(value) else float(str(value)))  # pyright: ignore[reportArgumentType, reportCallIssue]
