"""Every table, hostile names included, through the real pdflatex; left out where it is missing."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from make_document import ARMS, HOSTILE, make_table

from reports.document import Cell, Table
from reports.writers import latex

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed"),
]

_PREAMBLE = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage{booktabs,amssymb}
%s
\begin{document}
"""


def _compile(folder: Path, body: str, *, packages: str = "") -> str:
    """The text of the PDF; the first error of pdflatex fails the test."""
    source = folder / "paper.tex"
    text = f"{_PREAMBLE % packages}{body}\n\\end{{document}}\n"
    source.write_text(text, encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape", source]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, errors="replace", check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    if shutil.which("pdftotext") is None:
        return ""
    command = ["pdftotext", "-layout", "paper.pdf", "-"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def _named(names: tuple[str, ...], *, columns: int = 8) -> Table:
    table = make_table(names, num_columns=columns)
    hostile = tuple(names[k % len(names)] for k in range(len(table.columns)))
    heads = tuple(
        replace(column, title=name, explained=name)
        for column, name in zip(table.columns, hostile, strict=True)
    )
    return replace(table, title=names[0], notes=names, columns=heads)


@pytest.mark.parametrize("packages", ["", r"\usepackage{graphicx}", r"\usepackage[T1]{fontenc}"])
@pytest.mark.parametrize("columns", [4, 8])
def test_hostile_names_compile(tmp_path: Path, packages: str, columns: int) -> None:
    text = _compile(tmp_path, latex(_named(HOSTILE, columns=columns), label="x"), packages=packages)
    assert "root:" not in text


def test_every_sign_that_a_report_uses_compiles(tmp_path: Path) -> None:
    signs = "".join(map(chr, [*range(0x20, 0x7F), *range(0xA0, 0x180), *range(0x370, 0x400)]))
    signs += "−–—‘’“”…†‡•±×·≈≤≥≠∞∈√∩∪∅↑↓→←✓²³½Δµ°中😀\u2009\u202f"
    rows = tuple((Cell(text=signs[k : k + 24]),) for k in range(0, len(signs), 24))
    table = make_table(ARMS, num_columns=1)
    _compile(tmp_path, latex(replace(table, rows=rows), label="signs"))
    assert (tmp_path / "paper.pdf").stat().st_size > 0


def test_what_is_printed_is_what_was_meant(tmp_path: Path) -> None:
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed")
    text = _compile(tmp_path, latex(make_table(), label="x"))
    for word in (
        "UNet++ DS",
        "9.04 M",
        "± 0.012",
        "baseline",
        "multiply-accumulates",
        "<0.001",
        "+0.000 [−0.010, +0.010]",
    ):
        assert word in text
