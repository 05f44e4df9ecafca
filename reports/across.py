"""One report of one study on several data sets, from the study folders that lie in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from reports import Report, result_table, writers
from reports.depth import depth_rows
from reports.depth_texts import (
    INTERVAL_LEGEND,
    depth_heads,
    depth_lines,
    depth_markdown,
    depth_notes,
    depth_terminal,
    depth_verdict,
    terminal_page,
)
from reports.document import SavedFigure
from reports.escaping import csv_text
from reports.figures import save_drawing
from reports.html import data_uri, page_environment
from reports.methods import data_summary, invocations, methods, provenance
from reports.plots.depth_per_dataset import caption, draw_depth_per_dataset
from reports.records import StudyRecords, incomplete_line, load_study
from reports.tables import result_rows
from reports.verdict import verdict
from unetpp.errors import UserError

# The folder in which the page itself lies.
REPORT = "report"
_FIGURE = "depth_per_dataset"
_ARM_HEAD = ("Data", "Arm", "Params", "MACs", "Dice", "Delta Dice [95 %]", "Holm p")


@dataclass(frozen=True, slots=True, kw_only=True)
class Across:
    """One study on several data sets.

    Attributes:
        studies: (name of its folder, records), in the order of the names.
        left_out: a sentence for every study folder that cannot be reported yet.
    """

    studies: tuple[tuple[str, StudyRecords], ...]
    left_out: tuple[str, ...]

    @property
    def study(self) -> str:
        """The name of the study."""
        return self.studies[0][1].manifest.study

    @property
    def loud(self) -> list[str]:
        """What is missing, one sentence a data set."""
        lines = [(name, incomplete_line(study)) for name, study in self.studies]
        return [*self.left_out, *(f"{name} is {line}" for name, line in lines if line)]


def study_folders(folder: Path) -> list[Path]:
    """The folders in `folder` that hold records, in the order of their names."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.name != REPORT and (path / "records.sqlite").is_file()
    )


def load_across(folder: Path) -> Across:
    """Read every study that lies in `folder`.

    Raises:
        UserError: when none can be reported, or when they are not of one study.
    """
    studies: list[tuple[str, StudyRecords]] = []
    refusals: list[tuple[str, UserError]] = []
    for path in study_folders(folder):
        try:
            studies.append((path.name, load_study(path)))
        except UserError as error:
            refusals.append((path.name, error))
    if not studies:
        raise (
            refusals[0][1]
            if refusals
            else UserError(
                f"a joined report is of study folders that lie in one folder, but {folder} holds "
                "none; give the --out of `unetpp run` with several --data"
            )
        )
    first = studies[0][1].manifest.study
    other = next((found for found in studies if found[1].manifest.study != first), None)
    if other is not None:
        raise UserError(
            f"a joined report is of one study on several data sets, but {folder} holds {first} "
            f"in {studies[0][0]} and {other[1].manifest.study} in {other[0]}; keep each study in "
            "a folder of its own"
        )
    return Across(
        studies=tuple(studies),
        left_out=tuple(f"{name} is left out: {error}." for name, error in refusals),
    )


def build_across_report(folder: Path) -> Report:
    """See `reports.build_across`."""
    across = load_across(folder)
    target = folder / REPORT
    (target / "figures").mkdir(parents=True, exist_ok=True)
    rows, arms = depth_rows(across.studies), _arm_rows(across)
    texts = _texts(across, rows, arms)
    for name in ("arms.md", "arms.csv"):
        (target / name).unlink(missing_ok=True)
    for name, text in texts.items():
        (target / name).write_text(text, encoding="utf-8", newline="\n")
    figures = _figures(rows, target / "figures")
    pictures = tuple(path for figure in figures for path in figure.files)
    files = [*texts, *(path.relative_to(target).as_posix() for path in pictures)]
    sentences = _verdict(across, rows)
    page = target / "index.html"
    text = _render(across, rows, figures=figures, sentences=sentences, files=files)
    page.write_text(text, encoding="utf-8", newline="\n")
    return Report(
        page=page,
        tables=tuple(target / name for name in texts),
        figures=pictures,
        verdict=(*across.loud, *sentences),
        text=texts["table.txt"],
    )


def _arm_rows(across: Across) -> pd.DataFrame:
    """The rows of `tables.result_rows` of all studies, with the column data before them."""
    frames = [result_rows(study).assign(data=name) for name, study in across.studies]
    joined = pd.concat(frames, ignore_index=True)
    return joined[["data", *(name for name in joined.columns if name != "data")]]


def _arm_cells(across: Across) -> list[tuple[str, ...]]:
    """The rounded rows of all arms, see `_ARM_HEAD`."""
    cells: list[tuple[str, ...]] = []
    for name, study in across.studies:
        lines = result_table.result_lines(result_rows(study), study.manifest.baseline)
        cells += [
            (
                name, study.titles[arm.name], line.parameters, line.macs, line.dice.line,
                line.comparison, line.p_holm,
            )
            for arm, line in zip(study.arms, lines, strict=True)
        ]  # fmt: skip
    return cells


def _arm_notes(across: Across) -> list[str]:
    study = across.studies[0][1]
    return [
        result_table.TIE_LEGEND,
        (
            "Dice: mean over the cases of a held-out fold, then mean ± standard deviation over folds. "
            f"Delta: Dice minus that of {study.titles[study.manifest.baseline]} on the same data, "
            "paired by fold, with the 95 % interval of the corrected resampled t (Nadeau and Bengio "
            "2003). Holm p: corrected over the arms of one data set."
        ),
    ]


def _texts(across: Across, rows: pd.DataFrame, arms: pd.DataFrame) -> dict[str, str]:
    """File name -> content; the first table is that of depths where there are curves."""
    cells, notes = _arm_cells(across), [*across.loud, *_arm_notes(across)]
    escaped = [tuple(map(writers.escape_markdown, row)) for row in cells]
    below = " ".join(map(writers.escape_markdown, notes))
    markdown = f"{writers.markdown_table(_ARM_HEAD, escaped, left=2)}\n{below}\n"
    if rows.empty:
        return {
            "table.txt": _arm_terminal(cells, notes),
            "table.md": markdown,
            "table.csv": csv_text(arms),
        }
    return {
        "table.txt": depth_terminal(rows),
        "table.md": depth_markdown(rows),
        "table.csv": csv_text(rows),
        "arms.md": markdown,
        "arms.csv": csv_text(arms),
    }


def _arm_terminal(cells: Sequence[tuple[str, ...]], notes: Sequence[str]) -> str:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    kept = [place for place, name in enumerate(_ARM_HEAD) if name != "MACs"]
    for place in kept:
        name = _ARM_HEAD[place].replace(" [", "\n[")
        table.add_column(name, justify="left" if place < 2 else "right", overflow="fold")
    for row in cells:
        # Text, not str: a folder named "[x]" is no markup.
        stacked = [row[place].replace(" ± ", "\n±").replace(" [", "\n[") for place in kept]
        table.add_row(*map(Text, stacked))
    return terminal_page(table, notes)


def _figures(rows: pd.DataFrame, folder: Path) -> list[SavedFigure]:
    files = tuple(folder / f"{_FIGURE}{suffix}" for suffix in (".svg", ".png", ".csv"))
    for path in files:
        path.unlink(missing_ok=True)
    if rows.empty:
        return []
    save_drawing(lambda: draw_depth_per_dataset(rows), rows, files)
    return [SavedFigure(name=_FIGURE, title="Dice over depth", caption=caption(), files=files)]


def _verdict(across: Across, rows: pd.DataFrame) -> list[str]:
    if len(rows):
        return depth_verdict(rows)
    return [f"{name}: {line}" for name, study in across.studies for line in verdict(study)]


def _render(
    across: Across,
    rows: pd.DataFrame,
    *,
    figures: Sequence[SavedFigure],
    sentences: Sequence[str],
    files: Sequence[str],
) -> str:
    first = across.studies[0][1]
    return (
        page_environment(Path(__file__).parent)
        .get_template("across.html.jinja")
        .render(
            manifest=first.manifest,
            names=[name for name, _ in across.studies],
            loud=across.loud,
            verdict=sentences,
            figures=[(figure, data_uri(figure)) for figure in figures],
            heads=depth_heads(rows) if len(rows) else [],
            lines=depth_lines(rows) if len(rows) else [],
            notes=[INTERVAL_LEGEND, *depth_notes()],
            arm_head=_ARM_HEAD,
            arms=_arm_cells(across),
            arm_notes=_arm_notes(across),
            sections=[
                (name, data_summary(study), methods(study), provenance(study), invocations(study))
                for name, study in across.studies
            ],
            files=files,
        )
    )
