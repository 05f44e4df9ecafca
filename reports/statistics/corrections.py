"""Several comparisons at once, corrected after Holm (Scandinavian Journal of Statistics 6, 1979)."""

from __future__ import annotations

import math
from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given.

    NaN stands for a comparison that could not be tested: it stays NaN and is not counted.
    """
    adjusted = [math.nan] * len(p_values)
    order = sorted(
        (k for k, p in enumerate(p_values) if not math.isnan(p)), key=lambda k: p_values[k]
    )
    largest = 0.0
    for rank, k in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[k]))
        adjusted[k] = largest
    return adjusted
