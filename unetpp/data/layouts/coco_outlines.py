"""Whether outlines of a COCO json can be drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from unetpp.data.layouts.json_files import short


def outline_problem(segmentation: Any, height: int, width: int) -> str | None:
    """What is wrong with an outline, as the end of a sentence; None where it can be drawn.

    Args:
        segmentation: polygons or runs, as the json has them.
        height: of the image.
        width: of the image.
    """
    if isinstance(segmentation, Mapping):
        return _rle_problem(segmentation, height, width)
    if not isinstance(segmentation, list) or not segmentation:
        return "has no outline (`segmentation`)"
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return "has an outline that is no list of 3 or more points x, y"
        # Points may lie a little outside; far ones would make the drawing of them endless.
        bounds = [bound for _ in range(len(polygon) // 2) for bound in (width, height)]
        for value, bound in zip(polygon, bounds, strict=True):
            # A whole number may be larger than any of floating point.
            if type(value) is not int and (type(value) is not float or not math.isfinite(value)):
                return f"has the coordinate {short(value)}, which is no number"
            if not -bound <= value <= 2 * bound:
                return f"has the coordinate {short(value)}, far outside of the image"
    return None


def _rle_problem(rle: Mapping[str, Any], height: int, width: int) -> str | None:
    counts = rle.get("counts")
    if rle.get("size") != [height, width]:
        return f"has an RLE of size {short(rle.get('size'))} in an image of {[height, width]}"
    if isinstance(counts, str):
        return None
    if not isinstance(counts, list) or not all(type(n) is int and n >= 0 for n in counts):
        return "has an RLE whose `counts` are neither text nor whole numbers"
    if sum(counts) != height * width:
        return f"has an RLE of {sum(counts)} pixels in an image of {height * width}"
    return None
