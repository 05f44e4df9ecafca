"""Draws what `bench_scaling.py` and `bench_scaling_search.py` wrote, for docs/scaling.md.

    python benchmarks/bench_scaling.py --out docs/results/scaling/folds.csv
    python benchmarks/bench_scaling_search.py --out docs/results/scaling/trials.csv
    python benchmarks/draw_scaling.py

Folds and trials a second against the number of workers, with what they would be if nobody waited; the
band is where it bends: from the last number of workers that reaches three quarters of it to the next.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_ROOT = Path(__file__).parents[1]
_FOLDER = _ROOT / "docs" / "results" / "scaling"
_BENT = 0.75
_FOLDS_A_TRIAL = 3


def draw(axes: Axes, rows: pd.DataFrame, name: str, where: str) -> None:
    """One panel.

    Args:
        axes: of the panel.
        rows: of one duration, by the number of workers.
        name: of what is counted, in the plural.
        where: they are counted.
    """
    seconds = rows["seconds"].iloc[0] * (_FOLDS_A_TRIAL if name == "trials" else 1)
    workers, rates = rows["workers"], rows[f"{name}_s"]
    most = workers.max()
    bent = rows[rows["of_ideal"] < _BENT]
    if len(bent):
        end = bent["workers"].min()
        begin = workers[workers < end].max()
        axes.axvspan(begin, end, color="#F2D9C7", lw=0)
        axes.text(
            (begin + end) / 2, 0.02 * most / seconds, "bends", ha="center", va="bottom", fontsize=8,
            color="#A34700",
        )  # fmt: skip
    axes.plot([0, most], [0, most / seconds], "--", color="#777777", label="if nobody waited")
    axes.plot(workers, rates, "o-", color="#0072B2", label="measured")
    for count, rate, share in zip(workers, rates, rows["of_ideal"], strict=True):
        if count >= most / 4:
            axes.annotate(
                f"{100 * share:.0f} %", (count, rate), (0, -6), textcoords="offset points",
                ha="center", va="top", fontsize=8, color="#0072B2",
            )  # fmt: skip
    axes.set_xlim(0, 1.06 * most)
    axes.set_ylim(0, 1.04 * most / seconds)
    axes.set_xlabel("workers")
    axes.set_ylabel(f"{name} per second")
    axes.set_title(f"{where}, {name} of {seconds:g} s")
    axes.legend(loc="upper left")


def main() -> None:
    """Read both files, and write one picture."""
    folds, trials = (pd.read_csv(_FOLDER / f"{name}.csv") for name in ("folds", "trials"))
    with mpl.rc_context(fname=_ROOT / "reports" / "style.mplstyle"):
        figure = Figure(figsize=(7, 2.9))
        left, right = figure.subplots(1, 2)
        draw(left, folds, "folds", "one study")
        draw(right, trials, "trials", "one search")
        figure.savefig(_FOLDER / "scaling.png")


if __name__ == "__main__":
    main()
