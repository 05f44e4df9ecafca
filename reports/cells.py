"""Cells of tables: numbers rounded as their intervals allow, with their place and their spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from reports.document import Cell
from reports.writers import billions, millions, p_value, signed

NONE = "n/a"
Rank = Literal[0, 1, 2]
Mark = Literal["", "tie", "worse"]
# Scores that differ by less share their place: means of equal cases may differ by rounding.
_DIGITS = 12


def words(text: str, *, strong: bool = False) -> Cell:
    """A cell of words, sorted by them."""
    return Cell(text=text, strong=strong)


def number(
    value: float,
    digits: int,
    *,
    sd: float = math.nan,
    limits: tuple[float, float] | None = None,
    rank: Rank = 0,
    mark: Mark = "",
) -> Cell:
    """A rounded number with its standard deviation or its interval; "n/a" for NaN.

    Args:
        value: NaN where there is none.
        digits: decimals.
        sd: printed as "± 0.012"; NaN where there is none.
        limits: printed as "[0.871, 0.902]"; NaN where there are none.
        rank: see `places`.
        mark: see `Cell`.
    """
    if math.isnan(value):
        return Cell(text=NONE, value=math.nan)
    spread = "" if math.isnan(sd) else f"± {sd:.{digits}f}"
    if limits is not None and not math.isnan(limits[0]):
        spread = f"[{limits[0]:.{digits}f}, {limits[1]:.{digits}f}]"
    return Cell(text=f"{value:.{digits}f}", spread=spread, value=value, rank=rank, mark=mark)


def difference(
    value: float,
    digits: int,
    *,
    limits: tuple[float, float],
    bound: float = math.inf,
    mark: Mark = "",
) -> Cell:
    """A signed difference with its interval: "+0.012 [-0.003, +0.027]"; limits are cut at `bound`."""
    low, high = max(limits[0], -bound), min(limits[1], bound)
    interval = f"[{signed(low, digits)}, {signed(high, digits)}]"
    spread = "" if math.isnan(low) or math.isnan(high) else interval
    return Cell(text=signed(value, digits), spread=spread, value=value, mark=mark)


def baseline_cell() -> Cell:
    """What stands in place of a difference from itself."""
    return Cell(text="baseline", value=math.nan)


def blank() -> Cell:
    """Nothing, sorted last among numbers."""
    return Cell(text="", value=math.nan)


def count(value: float) -> Cell:
    """A whole number, thousands apart; "n/a" for NaN."""
    text = NONE if math.isnan(value) else f"{round(value):,}"
    return Cell(text=text, value=float(value))


def share(value: float) -> Cell:
    """A share as per cent with one decimal; "n/a" for NaN."""
    text = NONE if math.isnan(value) else f"{100 * value:.1f} %"
    return Cell(text=text, value=value)


def parameters(value: float) -> Cell:
    """Millions of parameters."""
    return Cell(text=millions(value), value=value)


def macs(value: float) -> Cell:
    """Billions of multiply-accumulates."""
    return Cell(text=billions(value), value=value)


def memory(num_bytes: float) -> Cell:
    """GiB, or MiB below one tenth of one; 0 bytes stand for unknown."""
    if math.isnan(num_bytes) or num_bytes <= 0:
        return Cell(text=NONE, value=math.nan)
    gib = num_bytes / 2**30
    text = f"{gib:.2f} GiB" if gib >= 0.1 else f"{num_bytes / 2**20:.1f} MiB"
    return Cell(text=text, value=num_bytes)


def probability(p: float) -> Cell:
    """A p value."""
    return Cell(text=p_value(p), value=p)


def places(
    values: ArrayLike, *, better: Literal["higher", "lower"] = "higher", ranked: bool = True
) -> list[Rank]:
    """1 best, 2 second, 0 others, among those with a value; equal ones share a place.

    Where all are equal nobody has one, and of two the second is no distinction.

    Args:
        values: [rows]; NaN has no place. A single value has none either: it beats nobody.
        better: which end is best.
        ranked: False where the values are not of the same runs: then nobody has a place.
    """
    array = np.asarray(values, dtype=np.float64).round(_DIGITS)
    kept = np.unique(array[~np.isnan(array)])
    if not ranked or len(kept) < 2:
        return [0] * len(array)
    ordered = (kept if better == "lower" else kept[::-1]).tolist()
    ranks: dict[float, Rank] = {ordered[0]: 1}
    if np.count_nonzero(~np.isnan(array)) > 2:
        ranks[ordered[1]] = 2
    return [ranks.get(value, 0) for value in array.tolist()]


def decimals(half_widths: Sequence[float] | ArrayLike, *, least: int, most: int) -> int:
    """As many decimals as show the first digit of the typical interval's half width.

    Args:
        half_widths: NaN is left out; `least` where none is left or the typical one is 0.
        least: decimals that are always shown.
        most: never more.
    """
    kept = np.asarray(half_widths, dtype=np.float64)
    kept = kept[~np.isnan(kept)]
    middle = float(np.median(kept)) if len(kept) else 0.0
    return min(most, max(least, math.ceil(-math.log10(middle)))) if middle > 0 else least


def num_decimals(rows: pd.DataFrame) -> int:
    """3, or 4 where the intervals are so narrow that the third digit would hide them.

    Args:
        rows: with the columns delta_low and delta_high of scores between 0 and 1.
    """
    return decimals((rows["delta_high"] - rows["delta_low"]) / 2, least=3, most=4)
