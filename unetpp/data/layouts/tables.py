"""A table of the Hugging Face `datasets` library, with a column of images and one of masks.

Nothing of that library is imported: a table has a length, `column_names` and rows that are mappings.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

from unetpp.data.files import finding
from unetpp.data.findings import Finding
from unetpp.data.layouts.pairing import shown, without_copies
from unetpp.data.layouts.wanted import Wanted, labels_of, skip_empty_ignored
from unetpp.data.sources import CaseFiles, Listing, TableCell
from unetpp.errors import UserError


def list_table(
    table: Any, *, image_column: str, mask_column: str | None, wanted: Wanted
) -> Listing:
    """A case a row; its id is the column `id`, or else `row_000012`.

    Args:
        table: one split, such as `datasets.load_dataset(...)["train"]`.
        image_column: of pictures.
        mask_column: of pictures; None only where no masks are required.
        wanted: see there. The other columns of texts and whole numbers become the case's columns.

    Raises:
        UserError: it is no such table, has no rows or lacks a column, or masks need names of
            classes.
    """
    _check_table(table)
    labels, mask_rule, findings = labels_of(wanted)
    _check_columns(table, image_column, mask_column, wanted)
    cases, more = _cases(table, image_column, mask_column)
    findings += more
    if wanted.slice_axis is not None:
        text = "A slice axis is ignored, as the pictures of a table are no volumes."
        findings.append(finding("warning", "slice-axis-ignored", None, text))
    if not wanted.keep_empty:
        findings.append(skip_empty_ignored())
    return Listing(
        folder=Path(_name(table)),
        layout="table",
        layout_text="rows of a table of the `datasets` library",
        cases=tuple(sorted(cases, key=lambda case: case.id)),
        labels=labels,
        mask_rule=mask_rule,
        spatial_dims=2,
        group_column="group" if cases and "group" in cases[0].columns else None,
        findings=tuple(findings),
    )


def _check_table(table: Any) -> None:
    if isinstance(table, Mapping):
        raise UserError(
            f"A table must be one split, but got the splits {', '.join(map(str, table))}; pass one "
            "of them."
        )
    if not hasattr(table, "column_names") or not hasattr(table, "__len__"):
        raise UserError(
            "A table must have `column_names` and a length, as `datasets.Dataset` has, but got "
            f"{type(table).__name__}; load it without streaming."
        )
    if len(table) == 0:
        raise UserError("A table must have at least one row, but has none; choose another split.")


def _check_columns(table: Any, image_column: str, mask_column: str | None, wanted: Wanted) -> None:
    if mask_column is None and wanted.masks_required:
        raise UserError(
            "A table must have a column of masks, but none is named; name one of "
            f"{', '.join(table.column_names)}."
        )
    for column in (image_column, mask_column):
        if column is not None and column not in table.column_names:
            raise UserError(
                f"The column `{column}` must be in the table, but it has "
                f"{', '.join(table.column_names)}; name one of these."
            )


def _cases(
    table: Any, image_column: str, mask_column: str | None
) -> tuple[list[CaseFiles], list[Finding]]:
    """A case a row, and an error for each row whose id is empty or not its own."""
    pictures = [image_column] if mask_column is None else [image_column, mask_column]
    named: list[tuple[str, tuple[int, CaseFiles]]] = []
    findings: list[Finding] = []
    for row, columns in enumerate(_scalars(table, pictures)):
        name = columns.pop("id", f"row_{row:06d}")
        if not name:
            text = (
                f"The ids of a table must be there, but that of row {row} is empty; fill it, or "
                "remove the column `id`."
            )
            findings.append(finding("error", "empty-id", None, text))
            continue
        image = TableCell(table=table, row=row, column=image_column)
        mask = None if mask_column is None else TableCell(table=table, row=row, column=mask_column)
        case = CaseFiles(id=name, image=(image,), mask=mask, columns=columns)
        named.append((name, (row, case)))
    single, copies = without_copies(named)
    for name, same in copies.items():
        text = (
            f"A case must be there once, but `{shown(name)}` is in the rows {same[0][0]} and "
            f"{same[1][0]}; mend the column `id` or remove it."
        )
        findings.append(finding("error", "duplicate-case", None, text))
    return [case for _, case in single.values()], findings


def _scalars(table: Any, pictures: list[str]) -> list[dict[str, str]]:
    """Of each row, the columns of texts and whole numbers; "" where a value is missing."""
    others = [column for column in table.column_names if column not in pictures]
    # A row decodes all of its pictures; without their columns, it decodes none.
    slim = table.select_columns(others) if hasattr(table, "select_columns") and others else table
    if not others:
        return [{} for _ in range(len(table))]
    rows = [slim[row] for row in range(len(table))]
    kept = [
        column
        for column in others
        if all(row[column] is None or isinstance(row[column], (str, Integral)) for row in rows)
    ]
    return [
        {column: "" if row[column] is None else str(row[column]) for column in kept} for row in rows
    ]


def _name(table: Any) -> str:
    name = getattr(getattr(table, "info", None), "dataset_name", None)
    return name if isinstance(name, str) and name else "table"
