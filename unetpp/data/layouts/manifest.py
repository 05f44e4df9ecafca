"""A table of images and masks: index.csv, manifest.csv or any other csv file.

image,mask,group,fold
images/a.png,masks/a.png,patient 1,0

image      relative to the table's folder; image_2, image_3, ... are further channels
mask       may be empty, or left out, when images are only predicted
group      optional: cases of one group stay on one side of a fold
fold       optional, or split: see `folds_of_columns`
others     are kept, to group and to balance by

The first line says whether `,`, `;` or a tab divides the cells.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path, PurePosixPath

from unetpp.data.files import NIFTI_SUFFIXES, PICTURE_SUFFIXES, finding, suffix_of
from unetpp.data.findings import BadFileError, Finding
from unetpp.data.layouts.csv_tables import Row, read_table
from unetpp.data.layouts.folders import as_one_kind
from unetpp.data.layouts.given_folds import folds_of_columns
from unetpp.data.layouts.pairing import id_of, long_id, shown, without_copies
from unetpp.data.layouts.walking import is_file
from unetpp.data.layouts.wanted import Wanted, labels_of
from unetpp.data.sources import CaseFiles, Listing, Pixels

NAMES = ("index.csv", "manifest.csv")
_IMAGE_COLUMN = re.compile(r"image(?:_([0-9]{1,4}))?")


def matches(folder: Path) -> bool:
    """Whether `folder` has an index.csv or manifest.csv, or is a csv file."""
    return _table(folder) is not None


def _table(folder: Path) -> Path | None:
    if folder.suffix.lower() == ".csv" and is_file(folder):
        return folder
    return next((folder / name for name in NAMES if is_file(folder / name)), None)


def list_cases(folder: Path, wanted: Wanted) -> Listing:
    """A case a row.

    Args:
        folder: it holds the table, or is the table.
        wanted: see there.

    Raises:
        UserError: there is no table, it is no csv file in UTF-8, a column is missing or doubled, it
            has no row, or masks need names of classes.
    """
    table = _table(folder)
    if table is None:
        raise BadFileError(
            "no-table",
            folder,
            f"There is no `{shown(folder / NAMES[0])}` and no `{NAMES[1]}`; write one with the "
            "columns image and mask.",
        )
    labels, mask_rule, findings = labels_of(wanted)
    columns, rows, more = read_table(table)
    findings += more
    image_columns = _image_columns(table, columns, wanted)
    inside = _inside_of(table.parent)
    named: list[tuple[str, tuple[int, CaseFiles]]] = []
    for row in rows:
        try:
            case = _case(table, row, image_columns, inside, wanted)
        except BadFileError as error:
            findings.append(error.finding)
        else:
            named.append((case.id, (row.line, case)))
    single, copies = without_copies(named)
    findings += [_doubled(table, same) for same in copies.values()]
    ready, spatial_dims, group_column, more = as_one_kind(
        [case for _, case in single.values()], wanted
    )
    folds, of_folds = folds_of_columns(table, ready, columns)
    return Listing(
        folder=table.parent,
        layout="manifest",
        layout_text=f"the images and masks that `{shown(table.name)}` names",
        cases=ready,
        labels=labels,
        mask_rule=mask_rule,
        spatial_dims=spatial_dims,
        group_column="group" if "group" in columns else group_column,
        given_folds=folds,
        findings=(*findings, *more, *of_folds),
    )


# --- its columns


def _image_columns(table: Path, columns: Sequence[str], wanted: Wanted) -> list[str]:
    """The columns of images, in the order of their numbers; `image` comes first.

    Raises:
        BadFileError: the table lacks images, or masks that are required.
    """
    numbers: list[tuple[int, str]] = []
    for name in columns:
        if match := _IMAGE_COLUMN.fullmatch(name):
            numbers.append((-1 if match[1] is None else int(match[1]), name))
    lacking = [] if numbers else ["image"]
    if wanted.masks_required and "mask" not in columns:
        lacking.append("mask")
    if not lacking:
        return [name for _, name in sorted(numbers)]
    lower = {name.lower(): name for name in columns}
    near = [lower[hit] for name in lacking for hit in difflib.get_close_matches(name, lower, n=1)]
    hint = f"did you mean {' and '.join(near)}? Its" if near else "its"
    text = (
        f"`{shown(table)}` must have the columns image and mask, but lacks {' and '.join(lacking)}; "
        f"{hint} first line is `{','.join(columns)}`."
    )
    raise BadFileError("missing-column", table, shown(text))


# --- its rows


def _case(
    table: Path,
    row: Row,
    image_columns: Sequence[str],
    inside: Callable[[PurePosixPath], bool],
    wanted: Wanted,
) -> CaseFiles:
    images = [_file(table, row, name, inside) for name in image_columns]
    masks = []
    if wanted.masks_required or row.cells.get("mask"):
        masks = [_file(table, row, "mask", inside)]
    name = _case_id(row.cells[image_columns[0]])
    if problem := long_id(name, images[0]):
        raise BadFileError(problem.code, images[0], problem.text)
    return CaseFiles(
        id=name,
        image=tuple(Pixels(path=path) for path in images),
        mask=Pixels(path=masks[0]) if masks else None,
        columns=row.cells,
    )


def _case_id(text: str) -> str:
    path = PurePosixPath(text)
    return id_of(str(path.relative_to("images") if path.parts[0] == "images" else path))


def _file(table: Path, row: Row, column: str, inside: Callable[[PurePosixPath], bool]) -> Path:
    """The file that a cell names.

    Raises:
        BadFileError: the cell is empty, leads out of the folder, or names no picture that is there.
    """
    text, where = row.cells[column], f"line {row.line} of `{shown(table)}`"
    kind = "mask" if column == "mask" else "image"
    if not text:
        lack = f"Every case must have {'a mask' if kind == 'mask' else 'its images'}"
        raise BadFileError(
            f"no-{kind}", table, f"{lack}, but `{column}` is empty in {where}; fill it."
        )
    relative = PurePosixPath(text)
    path = table.parent / relative
    is_inside = relative.parts and not relative.is_absolute() and ".." not in relative.parts
    if not is_inside or "\\" in text or not inside(relative.parent):
        raise BadFileError(
            "path-outside",
            table,
            f"Paths in a table must stay in its folder, but {where} has `{shown(text)}`; write "
            "them relative to the folder, with `/` and without `..`.",
        )
    if not is_file(path):
        raise BadFileError(
            f"no-{kind}", path, f"There is no {kind} `{shown(path)}`, which {where} names; mend it."
        )
    if not suffix_of(path.name):
        kinds = " ".join((*PICTURE_SUFFIXES, *NIFTI_SUFFIXES))
        raise BadFileError(
            "not-an-image",
            path,
            f"Images and masks must be files of the kinds {kinds}, but {where} names "
            f"`{shown(text)}`; convert it.",
        )
    return path


def _inside_of(root: Path) -> Callable[[PurePosixPath], bool]:
    """Whether a folder lies in `root`, or in a folder of `root` that is a link, links followed."""
    real = root.resolve()

    @cache
    def inside(relative: PurePosixPath) -> bool:
        try:
            folder = (root / relative).resolve()
            if folder.is_relative_to(real) or not relative.parts:
                return folder.is_relative_to(real)
            # A link to a large disk is common; one to what holds the set would open all of that.
            linked = (root / relative.parts[0]).resolve()
            return folder.is_relative_to(linked) and not real.is_relative_to(linked)
        except (OSError, ValueError, RuntimeError):
            # There is nothing of this name, which has its own sentence.
            return True

    return inside


def _doubled(table: Path, same: Sequence[tuple[int, CaseFiles]]) -> Finding:
    lines = " and ".join(str(line) for line, _ in same[:2])
    text = (
        f"A case must be there once, but `{shown(same[0][1].id)}` is in the lines {lines} of "
        f"`{shown(table)}`; remove or rename one."
    )
    return finding("error", "duplicate-case", table, text)
