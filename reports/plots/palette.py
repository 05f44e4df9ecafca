"""Colour, marker and dash of every arm: told apart without colour too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reports.records import StudyRecords

# Okabe and Ito's palette without its yellow (too light for lines); the baseline is black.
_COLOURS = ("#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
_MARKERS = ("s", "^", "D", "v", "P", "X")
_BASELINE = ("#000000", "o")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How one arm is drawn in every figure; dashes stand for deep supervision."""

    colour: str
    marker: str
    dash: Literal["-", "--"]
    title: str


def looks(study: StudyRecords) -> dict[str, Look]:
    """Arm -> look, by the promised order; from the seventh other arm on, looks repeat."""
    others = [arm.name for arm in study.arms if arm.name != study.manifest.baseline]
    drawn: dict[str, Look] = {}
    for arm in study.arms:
        place = others.index(arm.name) if arm.name in others else None
        colour, marker = _BASELINE
        if place is not None:
            colour, marker = _COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]
        drawn[arm.name] = Look(
            colour=colour,
            marker=marker,
            dash="--" if arm.deep_supervision else "-",
            title=study.titles[arm.name],
        )
    return drawn
