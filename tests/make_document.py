"""A document made by hand, names that attack every reader of it included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports.document import Cell, Chapter, Column, Document, SavedFigure, Section, Table
from reports.figures import save_drawing

# Each would be obeyed by one reader: a browser, a spreadsheet, LaTeX, Markdown, a terminal, eyes.
HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)> &lt;b&gt; \"'",
    "</style></script><!--",
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "+1+1;=2+2",
    "\t=1+1",
    r"\input{/etc/passwd}",
    r"\end{tabular}\write18{ls} %",
    "$x_1$ ^^5c {unclosed #1 & ~",
    "[link](javascript:alert(1)) ![x](http://example.org/x.png) <b>",
    "*not bold* | `code` __ ~~ https://example.org www.example.org a@example.org",
    "[bold red]rich[/]",
    "\x1b[31mred\x1b]8;;http://example.org\x07link\x1b[2J\r\nnext\x00",
    "\u202egnp.exe\u202c zero\u200bwidth\ufeff \u2066isolate",
    "עברית العربية 中文 ελ é ß 😀",
    "a very long name " * 8 + "x" * 120,
    "[star",
    "* star",
    "-- '' `` ?` !`",
)
ARMS = ("U-Net", "U-Net wide", "UNet++", "UNet++ DS", "UNet++ L3")

COLUMNS = (
    Column(title="Arm", align="left"),
    Column(title="DS", align="left", explained="deep supervision"),
    Column(title="Params", better="lower"),
    Column(title="MACs", better="lower", narrow=False, explained="multiply-accumulates"),
    Column(title="Dice", better="higher"),
    Column(title="IoU", better="higher"),
    Column(title="Delta Dice [95 %]"),
    Column(title="Holm p"),
)


def make_table(names: Sequence[str] = ARMS, *, name: str = "result", num_columns: int = 8) -> Table:
    """One row a name; the best, the second, a tie and a worse one are marked; the last lacks Dice."""
    random = np.random.default_rng(len(names))
    dice = np.round(random.uniform(0.80, 0.95, len(names)), 6)
    dice[-1] = math.nan
    order = np.argsort(-np.nan_to_num(dice))
    rows = []
    for place, arm in enumerate(names):
        missing = math.isnan(dice[place])
        rank = {int(order[0]): 1, int(order[1]): 2}.get(place, 0)
        delta = dice[place] - dice[0]
        cells = (
            Cell(text=arm),
            Cell(text="yes" if place % 2 else "no"),
            Cell(text=f"{9 + place}.04 M", value=9.04e6 + place * 1e6),
            Cell(text=f"{12 + place}.1 G", value=12.1e9 + place * 1e9),
            Cell(
                text="n/a" if missing else f"{dice[place]:.3f}",
                spread="" if missing else "± 0.012",
                value=float(dice[place]),
                rank=rank,  # pyright: ignore[reportArgumentType]
                mark="tie" if rank == 2 else "worse" if place == 0 else "",
            ),
            Cell(text=f"{0.7 + place / 100:.3f}", spread="± 0.020", value=0.7 + place / 100),
            Cell(text="baseline", value=None)
            if place == 0
            else Cell(
                text="n/a" if missing else f"{delta:+.3f}",
                spread="" if missing else f"[{delta - 0.01:+.3f}, {delta + 0.01:+.3f}]",
                value=float(delta),
            ),
            Cell(text="" if place == 0 else "<0.001", value=math.nan if place == 0 else 1e-4),
        )
        rows.append(cells[:num_columns])
    return Table(
        name=name,
        title="Dice and price of every arm",
        columns=COLUMNS[:num_columns],
        rows=tuple(rows),
        notes=(
            "Dice: 2·TP/(2·TP + FP + FN) per case; mean ± standard deviation over 5 folds.",
            "Delta: paired by fold, corrected resampled t; n >= 5 folds.",
        ),
        data=pd.DataFrame({"arm": list(names), "dice": dice, "third": dice / 3}),
    )


def save_curves(folder: Path, name: str = "curves") -> SavedFigure:
    """A small drawing in the look of all figures, with its numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    epochs = np.arange(20)
    data = pd.DataFrame({"epoch": epochs, "loss": np.exp(-epochs / 7)})

    def draw() -> Figure:
        figure = Figure()
        axes = figure.subplots()
        axes.plot(data["epoch"], data["loss"], marker="o", label="U-Net")
        axes.plot(data["epoch"], data["loss"] * 0.8, label="UNet++")
        axes.set(xlabel="Epoch", ylabel="Loss", title="Training loss")
        axes.legend()
        return figure

    files = tuple(folder / f"{name}{suffix}" for suffix in (".svg", ".pdf", ".png", ".csv"))
    save_drawing(draw, data, files)
    return SavedFigure(
        name=name,
        title="Learning curves",
        caption="Loss of the training cases, mean over folds; the band is the range.",
        files=files,
    )


def make_document(folder: Path, *, num_chapters: int = 3) -> Document:
    """Chapters with everything that a chapter can have; the second attacks its readers."""
    figures = tuple(save_curves(folder / f"c{k}") for k in range(num_chapters))
    return Document(
        title="Nested skips: the studies of one folder",
        chapters=tuple(_chapter(k, figures[k], hostile=k == 1) for k in range(num_chapters)),
    )


def _chapter(place: int, figure: SavedFigure, *, hostile: bool) -> Chapter:
    names = HOSTILE if hostile else ARMS
    title = f"Nested versus plain on data set {place + 1}"
    return Chapter(
        name=f"c{place}",
        title=HOSTILE[0] if hostile else title,
        question="Do nested, dense skips segment better than the plain U-Net?",
        loud=("Incomplete: 1 of 30 runs is missing: UNet++ fold 4.",) if place == 0 else (),
        verdict=(
            ("UNet++ is 0.012 above U-Net in Dice (0.912 against 0.900), 95 % interval -0.002 to "
            "+0.024: with 5 folds this cannot be told from zero."),
            "It takes 1.17 times the parameters and 2.41 times the multiply-accumulates.",
        ),
        limits=(
            "What the arms would score on other data: all cases come from one data set.",
            "That the recipes are the best of each arm: all share one.",
        ),
        sections=(
            Section(name="result", title="Result", tables=(make_table(names),)),
            Section(
                name="heads",
                title="Heads of the deep-supervised arms",
                paragraphs=("Each head is judged alone.",),
                tables=(make_table(ARMS, name="heads", num_columns=5),),
            ),
            Section(
                name="curves",
                title="Learning",
                figures=(
                    figure,
                    SavedFigure(
                        name="latency", title="Accuracy versus latency", caption="", files=(),
                        refusal="Not drawn: timings of two machines.",
                    ),
                ),
            ),
            Section(
                name="provenance",
                title="Provenance",
                pairs=(
                    ("Command", f"unetpp run nested_vs_plain --data {names[0]}"),
                    ("Machine", "Example CPU, 2 cores, 8 GiB"),
                    ("Data set, sha256", "d" * 64),
                ),
            ),
        ),
    )  # fmt: skip
