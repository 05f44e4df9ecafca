"""A csv file with its columns in the first line, which says whether `,`, `;` or a tab divides."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unetpp.data.files import finding
from unetpp.data.findings import BadFileError, Finding
from unetpp.data.layouts.pairing import shown

_MOST_BYTES = 2**28


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The cells of a row by column, and the number of its line, from 1."""

    line: int
    cells: Mapping[str, str]


def read_table(table: Path) -> tuple[list[str], list[Row], list[Finding]]:
    """Columns, rows that are not blank, and what is wrong with single rows.

    Raises:
        BadFileError: it is no csv file in UTF-8, is too large, has no row, or a column twice.
    """
    lines = _lines(table, _text(table))
    _, first = next(lines, (1, []))
    columns = [name.strip() for name in first]
    doubled = sorted({name for name in columns if name and columns.count(name) > 1})
    if doubled:
        raise BadFileError(
            "duplicate-column",
            table,
            f"The columns of `{shown(table)}` must differ, but `{shown(doubled[0])}` is there "
            f"{columns.count(doubled[0])} times; rename or remove one.",
        )
    rows: list[Row] = []
    blank: list[int] = []
    findings: list[Finding] = []
    for number, line in lines:
        cells = [cell.strip() for cell in line]
        if not any(cells):
            blank.append(number)
        elif any(cells[len(columns) :]):
            text = (
                f"A row must have a cell a column, but line {number} of `{shown(table)}` has "
                f"{len(cells)} for {len(columns)} columns; mend it, or quote cells that hold "
                "a separator."
            )
            findings.append(finding("error", "long-row", table, text))
        else:
            # A row may end early: what is not written is empty.
            cells += [""] * (len(columns) - len(cells))
            named = {name: cell for name, cell in zip(columns, cells, strict=False) if name}
            rows.append(Row(line=number, cells=named))
    if not rows and not findings:
        raise BadFileError(
            "no-cases",
            table,
            f"`{shown(table)}` must have at least one case, but has only its first line.",
        )
    return [name for name in columns if name], rows, findings + _blank_rows(table, blank)


def _blank_rows(table: Path, lines: Sequence[int]) -> list[Finding]:
    if not lines:
        return []
    text = f"{len(lines)} rows of `{shown(table)}` are blank and ignored, first line {lines[0]}."
    return [finding("warning", "blank-rows", table, text)]


def _text(table: Path) -> str:
    try:
        num_bytes = table.stat().st_size
        if num_bytes > _MOST_BYTES:
            raise BadFileError(
                "large-table",
                table,
                f"A table must have at most 256 MiB, but `{shown(table)}` has {num_bytes} bytes; "
                "divide it.",
            )
        return table.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _no_csv(table, error) from None


def _no_csv(table: Path, error: Exception) -> BadFileError:
    text = f"`{shown(table)}` must be a UTF-8 csv file ({shown(error)}); save it as one."
    return BadFileError("bad-table", table, text)


def _lines(table: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """The number of the line where each row begins, and its cells."""
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=_separator(text),
        strict=True,
        skipinitialspace=True,
    )
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _no_csv(table, ValueError(f"line {number}: {error}")) from None
        yield number, row


def _separator(text: str) -> str:
    """Which separator the first line has most of."""
    first = text.splitlines()[0] if text else ""
    return max(",;\t", key=first.count)
