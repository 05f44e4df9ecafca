"""Chosen cases: image, reference, and what each arm gets right and wrong."""

from __future__ import annotations

import textwrap

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reports.records import StudyRecords
from unetpp.metrics.overlap import dice
from unetpp.spec import GridSpec

# Of Okabe and Ito: told apart by colour-blind eyes; the outlines tell them apart in print too.
_HIT, _FALSE, _MISSED = (0, 158, 115), (213, 94, 0), (86, 180, 233)
_OPACITY = 0.55
# The page of a paper, and the smallest and largest picture on it.
_WIDTH, _SMALLEST, _LARGEST = 7.0, 0.85, 1.5


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
    side = min(_LARGEST, max(_SMALLEST, _WIDTH / num_columns))
    figure = Figure(figsize=(side * num_columns, 0.75 + (side * height / width + 0.33) * num_rows))
    grid = figure.subplots(num_rows, num_columns, squeeze=False)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.01, wspace=0.01, hspace=0.0)  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]
    letters = max(40, int(side * num_columns * 14))
    scores = data.set_index(["case", "arm"])["dice"]
    for n, (case, reason) in enumerate(zip(shown.case_ids, shown.reasons, strict=True)):
        image, truth = shown.images[n], shown.masks[n]
        _picture(grid[n][0], image)
        _picture(grid[n][1], _tinted(image, truth, truth))
        _outline(grid[n][1], truth > 0)
        _name_row(grid[n][0], row_title(case, reason, letters))
        for a, arm in enumerate(shown.arms):
            axes, found = grid[n][2 + a], shown.predictions[n, a]
            _picture(axes, _tinted(image, truth, found))
            _outline(axes, truth > 0)
            _outline(axes, found > 0, predicted=True)
            score = float(scores[case, arm])
            text = "both empty" if np.isnan(score) else f"Dice {score:.3f}"
            axes.set_xlabel(text, fontsize=8, labelpad=1.5)
    heads = ["image", "reference", *(study.titles[arm] for arm in shown.arms)]
    letters = max(8, int(side * 13))
    for axes, head in zip(grid[0], heads, strict=True):
        axes.annotate(
            textwrap.fill(head, letters), (0.5, 1), xytext=(0, 14), xycoords="axes fraction",
            textcoords="offset points", ha="center", va="bottom", fontsize=8,
        )  # fmt: skip
    figure.legend(
        handles=_legend(), loc="outside lower center", ncols=5 if side * num_columns > 5 else 3
    )
    return figure


def row_title(case: str, reason: str, letters: int) -> str:
    """Case and reason in so many letters: a long name loses its end, as the table has it whole."""
    room = max(12, letters - len(reason) - 2)
    name = case if len(case) <= room else f"{case[: room - 4].rstrip()} ..."
    return textwrap.shorten(f"{name}: {reason}", letters, placeholder=" ...")


def _name_row(axes: Axes, text: str) -> None:
    """Why this case, across the row: it may not enter the layout, so a blank title keeps its room."""
    axes.set_title(" ", fontsize=8, pad=4)
    name = axes.annotate(
        text, (0, 1), xytext=(0, 4), xycoords="axes fraction", textcoords="offset points",
        fontsize=8, weight="bold",
    )  # fmt: skip
    name.set_in_layout(False)


def _legend() -> list[Patch | Line2D]:
    return [
        Patch(color=_rgb(_HIT), label="true positive"),
        Patch(color=_rgb(_FALSE), label="false positive"),
        Patch(color=_rgb(_MISSED), label="false negative"),
        Line2D([], [], color="#999999", linewidth=1.0, label="reference (white)"),
        Line2D([], [], color="black", linewidth=1.0, linestyle=":", label="prediction"),
    ]


def caption(study: StudyRecords, data: pd.DataFrame) -> str:
    """What is coloured and outlined, and what the numbers below the pictures are."""
    del data
    volumes = any(GridSpec.from_json(arm.spec).spatial_dims == 3 for arm in study.arms)
    several = len(study.manifest.dataset["classes"]) > 1
    seed = f", under seed {study.manifest.seed}" if study.manifest.num_seeds > 1 else ""
    text = (
        f"Held-out cases with the prediction of the run that did not train on them{seed}. White "
        "line: outline of the reference; dotted black line: of the prediction. What lies in both is "
        "a true positive, in the dotted line alone a false positive, in the white line alone a "
        "false negative. Dice: of the picture that is shown; the reason of choice goes by the Dice "
        "of the case as it was scored."
    )
    if volumes:
        text += " Of a volume, the slice across its last axis with the most foreground is shown."
    if several:
        text += (
            " A pixel of another class than the true one is coloured as a false positive, and counts "
            "as a false positive and as a false negative."
        )
    return text


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


def _outline(axes: Axes, mask: npt.NDArray[np.bool_], *, predicted: bool = False) -> None:
    if mask.any() and not mask.all():
        axes.contour(
            mask.astype(np.float64),
            levels=[0.5],
            colors="black" if predicted else "white",
            linewidths=0.7,
            linestyles="dotted" if predicted else "solid",
        )


def _rgb(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    red, green, blue = (part / 255 for part in colour)
    return red, green, blue
