"""Chosen cases: image, reference, and what each arm gets right and wrong."""

from __future__ import annotations

import textwrap

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from reports.records import StudyRecords
from unetpp.metrics.overlap import dice

_HIT, _FALSE, _MISSED = (0, 158, 115), (213, 94, 0), (86, 180, 233)
_OPACITY = 0.55


def overlay_scores(study: StudyRecords) -> pd.DataFrame:
    """One row per (case, arm) in the grid: counts and Dice of the mask that is drawn."""
    shown = study.overlays
    if shown is None:
        return pd.DataFrame()
    rows: list[dict[str, object]] = []
    for n, (case, reason) in enumerate(zip(shown.case_ids, shown.reasons, strict=True)):
        truth = shown.masks[n]
        for a, arm in enumerate(shown.arms):
            found = shown.predictions[n, a]
            hit = (truth > 0) & (found == truth)
            tp, fp, fn = hit.sum(), ((found > 0) & ~hit).sum(), ((truth > 0) & ~hit).sum()
            rows.append(
                {
                    "case": case,
                    "reason": reason,
                    "arm": arm,
                    "tp": int(tp),
                    "fp": int(fp),
                    "fn": int(fn),
                    "dice": float(dice(tp, fp, fn)),
                }
            )
    return pd.DataFrame(rows)


def draw_overlay_grid(study: StudyRecords, data: pd.DataFrame) -> Figure:
    """Rows: cases with the reason of choice; columns: image, reference, then the arms."""
    shown = study.overlays
    assert shown is not None
    num_rows, num_columns = len(shown.case_ids), 2 + len(shown.arms)
    height, width = shown.masks.shape[1:]
    figure = Figure(figsize=(1.75 * num_columns, 0.9 + (1.75 * height / width + 0.5) * num_rows))
    grid = figure.subplots(num_rows, num_columns, squeeze=False)
    for n, (case, reason) in enumerate(zip(shown.case_ids, shown.reasons, strict=True)):
        image, truth = shown.images[n], shown.masks[n]
        _picture(grid[n][0], image)
        _picture(grid[n][1], _tinted(image, truth, truth))
        # The reason spans the row, so it may not enter the layout; the blank title keeps its room.
        grid[n][0].set_title(" ", fontsize=10, pad=24)
        reason_text = grid[n][0].annotate(
            textwrap.shorten(f"{case}: {reason}", 130),
            (0, 1),
            xytext=(0, 20),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=11,
            weight="bold",
        )
        reason_text.set_in_layout(False)
        for a, arm in enumerate(shown.arms):
            axes = grid[n][2 + a]
            _picture(axes, _tinted(image, truth, shown.predictions[n, a]))
            _contour(axes, truth > 0)
            score = data[(data["case"] == case) & (data["arm"] == arm)]["dice"].iloc[0]
            axes.set_xlabel("both empty" if np.isnan(score) else f"Dice {score:.3f}", fontsize=10)
    heads = ["image", "reference", *(study.titles[arm] for arm in shown.arms)]
    for row in grid:
        for axes, head in zip(row, heads, strict=True):
            axes.text(0.5, 1.03, head, transform=axes.transAxes, ha="center", fontsize=10)
    figure.legend(
        handles=[
            Patch(color=_rgb(_HIT), label="true positive"),
            Patch(color=_rgb(_FALSE), label="false positive"),
            Patch(color=_rgb(_MISSED), label="false negative"),
        ],
        loc="outside lower center",
        ncols=3,
    )
    return figure


def caption(study: StudyRecords, data: pd.DataFrame) -> str:
    """What is coloured."""
    del study, data
    return (
        "Held-out cases with the prediction of the run that did not train on them; the white line "
        "is the reference."
    )


def _tinted(
    image: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8], found: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """Image [H, W, 3] with true positives, false positives and false negatives in colour; another
    class than the true one is a false positive.
    """
    mixed = image.astype(np.float64)
    hit = (truth > 0) & (found == truth)
    for where, colour in (
        (hit, _HIT),
        ((found > 0) & ~hit, _FALSE),
        ((truth > 0) & (found == 0), _MISSED),
    ):
        mixed[where] = (1 - _OPACITY) * mixed[where] + _OPACITY * np.asarray(colour)
    return mixed.round().astype(np.uint8)


def _picture(axes: Axes, image: npt.NDArray[np.uint8]) -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)


def _contour(axes: Axes, mask: npt.NDArray[np.bool_]) -> None:
    if mask.any() and not mask.all():
        axes.contour(mask.astype(np.float64), levels=[0.5], colors="white", linewidths=0.9)


def _rgb(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    red, green, blue = (part / 255 for part in colour)
    return red, green, blue
