import io
import re
from csv import DictReader
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from make_document import ARMS, COLUMNS, HOSTILE, make_document, make_table
from markdown_it import MarkdownIt
from rich.cells import cell_len

from reports.document import Cell, Column, Table
from reports.writers import (
    counted,
    csv,
    latex,
    legend,
    markdown,
    millions,
    p_value,
    signed,
    table_files,
    terminal,
)

_SMALL = Table(
    name="result",
    title="Scores of a_b",
    columns=(
        Column(title="Arm", align="left"),
        Column(title="Dice", better="higher", explained="overlap"),
        Column(title="Loss", better="lower"),
    ),
    rows=(
        (
            Cell(text="U-Net_1 & co"),
            Cell(text="0.900", spread="± 0.010", value=0.9, rank=2, mark="tie"),
            Cell(text="-0.10", value=-0.1, mark="worse"),
        ),
        (
            Cell(text="[UNet++]"),
            Cell(text="0.912", spread="± 0.020", value=0.912, rank=1),
            Cell(text="n/a", value=float("nan")),
        ),
    ),
    notes=("n >= 5 folds.",),
    data=pd.DataFrame({"arm": ["U-Net_1 & co", "[UNet++]"], "dice": [0.1 + 0.2, 0.912]}),
)


def test_terminal_is_this_text() -> None:
    assert terminal(_SMALL) == (
        "Scores of a_b\n"
        "\n"
        "Arm                    Dice ↑  Loss ↓\n"
        "─────────────────────────────────────\n"
        "U-Net_1 & co  0.900°≈ ± 0.010  -0.10†\n"
        "[UNet++]      0.912*  ± 0.020    n/a\n"
        "\n"
        "*: best of its column; °: second.\n"
        "≈: not significantly different from the best.\n"
        "†: worse than the baseline after Holm's correction (p < 0.05).\n"
        "Dice: overlap.\n"
        "n >= 5 folds.\n"
    )


def test_markdown_is_this_text() -> None:
    assert markdown(_SMALL) == (
        "**Scores of a\\_b**\n"
        "\n"
        "| Arm | Dice ↑ | Loss ↓ |\n"
        "| --- | ---: | ---: |\n"
        "| U-Net\\_1 & co | <u>0.900</u>≈ ± 0.010 | -0.10† |\n"
        "| \\[UNet++] | **0.912** ± 0.020 | n/a |\n"
        "\n"
        "Bold: best of its column; underlined: second. ≈: not significantly different from the "
        "best. †: worse than the baseline after Holm's correction (p \\< 0.05). Dice: overlap. "
        "n >= 5 folds.\n"
    )


def test_latex_is_this_text() -> None:
    assert (
        latex(_SMALL, label="a_b")
        == r"""
% needs \usepackage{booktabs,amssymb}; with graphicx a wide table shrinks to the text
\begin{table}
\centering
\caption{Scores of a\_b. Bold: best of its column; underlined: second. $\approx$: not significantly different from the best. $\dagger$: worse than the baseline after Holm's correction (p $<$ 0.05). Dice: overlap. n $\geq$ 5 folds.}
\label{tab:a-b}
\begin{tabular}{@{}lrr@{}}
\toprule
Arm & Dice $\uparrow$ & Loss $\downarrow$ \\
\midrule
U-Net\_1 \& co & \underline{0.900}$^{\approx}$ $\pm$ 0.010 & $-$0.10$^{\dagger}$ \\
{}[UNet++] & \textbf{0.912} $\pm$ 0.020 & n/a \\
\bottomrule
\end{tabular}
\end{table}
""".lstrip()
    )


def test_csv_holds_the_raw_numbers() -> None:
    read = list(DictReader(io.StringIO(csv(_SMALL))))
    assert [float(row["dice"]) for row in read] == [0.1 + 0.2, 0.912]


def test_only_marks_that_occur_are_explained() -> None:
    bare = replace(
        _SMALL,
        columns=tuple(replace(column, explained="") for column in _SMALL.columns),
        rows=tuple(tuple(replace(cell, rank=0, mark="") for cell in row) for row in _SMALL.rows),
    )
    assert legend(bare) == []
    first = replace(bare, rows=((*bare.rows[0][:2], replace(bare.rows[0][2], rank=1)),))
    assert legend(first) == ["Bold: best of its column."]


@pytest.mark.parametrize("names", [ARMS, HOSTILE])
@pytest.mark.parametrize("repeat", [1, 3])
def test_a_terminal_keeps_to_its_width_and_loses_no_digit(
    names: tuple[str, ...], repeat: int
) -> None:
    table = make_table(names)
    wide = replace(
        table,
        columns=table.columns[:1] + table.columns[1:] * repeat,
        rows=tuple(row[:1] + row[1:] * repeat for row in table.rows),
    )
    lines = terminal(wide).splitlines()
    assert max(map(cell_len, lines)) <= 80
    assert "…" not in "".join(lines)
    words = " ".join(lines).split()
    for row in table.rows:
        for column, cell in zip(COLUMNS[2:], row[2:], strict=True):
            shown = f"{cell.text} {cell.spread}".split() if column.narrow else []
            for word in shown:
                # A number may be followed by its marks.
                assert [w for w in words if w.rstrip("*°≈†") == word]


def test_a_terminal_leaves_out_columns_that_are_not_narrow() -> None:
    assert "MACs" in markdown(make_table())
    assert "MACs" not in terminal(make_table()).split("\n\n")[1]


def test_spreads_stand_beside_their_numbers_where_they_fit() -> None:
    narrow = replace(
        make_table(), columns=COLUMNS[:1] + COLUMNS[4:5],
        rows=tuple(row[:1] + row[4:5] for row in make_table().rows),
    )  # fmt: skip
    assert re.search(r"0\.\d{3}\S* +± 0\.012", terminal(narrow))
    assert not re.search(r"0\.\d{3}\S* +± 0\.012", terminal(make_table()))


def test_names_are_text_in_a_terminal() -> None:
    shown = terminal(make_table(HOSTILE))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069]", shown)
    assert "[bold red]rich[/]" in shown


def test_names_are_text_in_markdown() -> None:
    table = make_table(HOSTILE)
    page = MarkdownIt("js-default", {"html": False}).render(markdown(table))
    for tag in ("<a", "<img", "<script", "<code", "<em", "<h1", "<del"):
        assert tag not in page
    assert page.count("<tr>") == len(HOSTILE) + 1


def test_a_note_is_no_heading_and_no_list() -> None:
    for start in ("# x", "- x", "1. x", "+ x", "> x", "2) x"):
        plain_table = Table(
            name="t", title="T", columns=COLUMNS[:1], rows=(), notes=(start,), data=pd.DataFrame()
        )
        page = MarkdownIt().render(markdown(plain_table))
        assert page.endswith(f"<p>{start.replace('>', '&gt;')}</p>\n")


def test_wide_tables_shrink_to_the_text() -> None:
    assert r"\resizebox{\textwidth}{!}" in latex(make_table(), label="x")
    assert r"\resizebox" not in latex(_SMALL, label="x")


def test_every_table_has_four_files_and_no_two_share_one(tmp_path: Path) -> None:
    files = table_files(make_document(tmp_path))
    assert len(files) == 3 * 2 * 4
    assert {"c0/result.csv", "c0/result.md", "c0/result.tex", "c0/result.txt"} <= set(files)


@pytest.mark.parametrize(
    ("count", "text"),
    [(568_000, "0.57 M"), (9.04e6, "9.04 M"), (36.63e6, "36.6 M"), (float("nan"), "n/a")],
)
def test_parameters_for_people(count: float, text: str) -> None:
    assert millions(count) == text


@pytest.mark.parametrize(("p", "text"), [(0.0312, "0.031"), (0.0001, "<0.001"), (1.0, "1.000")])
def test_p_values_for_people(p: float, text: str) -> None:
    assert p_value(p) == text


def test_a_difference_that_rounds_to_zero_is_not_negative() -> None:
    assert signed(-0.00004, 3) == "+0.000"


def test_the_terminal_explains_the_columns_that_it_shows_and_no_others() -> None:
    """Nor does it call bold what bears a star there."""
    table = Table(
        name="t",
        title="T",
        columns=(
            Column(title="Arm", align="left"),
            Column(title="DS", explained="deep supervision"),
            Column(title="Memory", explained="of a step", narrow=False),
        ),
        rows=((Cell(text="a", strong=True), Cell(text="no"), Cell(text="1 GiB", rank=1)),),
        notes=("Bold: the judged one.",),
        data=pd.DataFrame(),
    )
    lines = terminal(table).splitlines()
    assert lines[-2:] == ["DS: deep supervision.", "*: the judged one."]
    assert not any("Memory" in line or "best" in line for line in lines)
    assert "Memory: of a step." in markdown(table)


@pytest.mark.parametrize(("number", "text"), [(0, "0 runs"), (1, "1 run"), (2345, "2,345 runs")])
def test_what_is_counted_is_one_or_many(number: int, text: str) -> None:
    assert counted(number, "run") == text
