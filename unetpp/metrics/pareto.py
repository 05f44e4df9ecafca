"""Several objectives at once: which points no other one beats, and how much they cover.

A point is one value an objective; `signs` say which way is better: 1 for larger, -1 for smaller. It
dominates another that is no better under any objective and worse under one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Point = Sequence[float]


def front(points: Sequence[Point], signs: Sequence[int]) -> list[int]:
    """Indices of the points that no other one dominates, ascending; equal points are all kept."""
    gains = [tuple(sign * x for sign, x in zip(signs, point, strict=True)) for point in points]
    best, found = set[tuple[float, ...]](), np.empty((len(points), len(signs)))
    # Downwards, what dominates a point comes before it: that which is kept is never dropped.
    for gain in sorted(set(gains), reverse=True):
        if not (found[: len(best)] >= gain).all(axis=1).any():
            found[len(best)] = gain
            best.add(gain)
    return [index for index, gain in enumerate(gains) if gain in best]


def hypervolume(points: Sequence[Point], reference: Point, signs: Sequence[int]) -> float:
    """Volume between the front of `points` and `reference`, in the product of their units.

    Exact, by slicing along the last objective; meant for a few hundred points and up to four
    objectives. Points that are not better than the reference everywhere add nothing.

    Args:
        points: may be dominated, equal, or none.
        reference: the corner that every point should beat; declared before the points are known.
        signs: 1 or -1 an objective.
    """
    gains = [
        tuple(sign * (x - r) for x, r, sign in zip(point, reference, signs, strict=True))
        for point in points
    ]
    return _volume([gain for gain in gains if min(gain) > 0])


def _volume(gains: Sequence[tuple[float, ...]]) -> float:
    """Volume of the union of the boxes from the origin to each of these points."""
    if not gains:
        return 0.0
    if len(gains[0]) == 1:
        return max(gain[0] for gain in gains)
    total, ordered = 0.0, sorted(gains, key=lambda gain: -gain[-1])
    for index, gain in enumerate(ordered):
        below = ordered[index + 1][-1] if index + 1 < len(ordered) else 0.0
        if gain[-1] > below:
            # Between this height and the next one, these and no other points are cut.
            total += (gain[-1] - below) * _volume(_unbeaten([g[:-1] for g in ordered[: index + 1]]))
    return total


def _unbeaten(gains: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    unique = sorted(set(gains))
    return [unique[k] for k in front(unique, [1] * len(unique[0]))]
