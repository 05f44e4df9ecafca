"""Masks drawn from the outlines of COCO."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetpp.data.files import finding
from unetpp.data.findings import BadFileError, Finding
from unetpp.data.labels import Labels
from unetpp.data.masks import Mask
from unetpp.data.sources import Outlines


def draw_outlines(source: Outlines, labels: Labels) -> Mask:
    """The mask that COCO annotations describe; what is drawn later lies on top.

    Args:
        source: the objects, with classes from 1.
        labels: for classes that may overlap, none hides another.

    Raises:
        BadFileError: a class that is not there, or an outline that cannot be drawn.
    """
    size = (source.height, source.width)
    planes = np.zeros((labels.num_planes, *size), np.uint8)
    sizes: list[int] = []
    findings: list[Finding] = []
    for number, (label, segmentation) in enumerate(source.objects):
        if not 1 <= label <= len(labels.names):
            raise BadFileError(
                "label-beyond-classes",
                source.path,
                f"classes must be 1 to {len(labels.names)}, but object {number} of an image in "
                f"`{source.path}` has {label}; name all classes with --classes a,b",
            )
        inside = _drawn(segmentation, number, source)
        sizes.append(int(np.count_nonzero(inside)))
        if not sizes[-1]:
            text = (
                f"an object must have pixels, but object {number} of an image of "
                f"{source.width} x {source.height} pixels in `{source.path}` has none; remove it"
            )
            findings.append(finding("warning", "empty-object", source.path, text))
        if labels.kind == "multilabel":
            planes[label - 1][inside] = 1
        else:
            planes[0][inside] = label
    return Mask(planes=planes, object_sizes=tuple(sizes), findings=tuple(findings))


def _drawn(segmentation: Any, number: int, source: Outlines) -> NDArray[np.bool_]:
    """Bool [H, W] of one object."""
    try:
        if isinstance(segmentation, dict):
            return _from_runs(segmentation, source.height, source.width)
        return _from_polygons(segmentation, source.height, source.width)
    except _BadOutlineError as error:
        raise BadFileError(
            "bad-outline",
            source.path,
            f"an outline must be polygons or runs of pixels, but object {number} of an image in "
            f"`{source.path}` {error}; mend or remove it",
        ) from None


class _BadOutlineError(Exception):
    """The rest of a sentence that begins with the object."""


def _from_polygons(polygons: Any, height: int, width: int) -> NDArray[np.bool_]:
    # COCO's own rasteriser: Pillow's draws the edge too, which makes an object of 16 pixels across
    # larger by an eighth.
    from pycocotools import mask as coco

    if not isinstance(polygons, list) or not polygons:
        raise _BadOutlineError("has none")
    for polygon in polygons:
        _check_polygon(polygon, height, width)
    runs = coco.merge(coco.frPyObjects(polygons, height, width))
    return _from_runs({**runs}, height, width)


def _check_polygon(polygon: Any, height: int, width: int) -> None:
    try:
        numbers = np.array(polygon, np.float64)
    except (TypeError, ValueError):
        numbers = np.empty((0, 0))
    if numbers.ndim != 1:
        raise _BadOutlineError("is no list of lists of numbers")
    if len(numbers) < 6 or len(numbers) % 2:
        raise _BadOutlineError(
            f"has {len(numbers)} numbers where x and y of at least 3 corners are needed"
        )
    if not np.isfinite(numbers).all():
        raise _BadOutlineError("has a corner that is not finite")
    # Outlines may overshoot the edge a little; further out they belong to another image.
    for name, values, length in (("x", numbers[::2], width), ("y", numbers[1::2], height)):
        beyond = max(-values.min(), values.max() - length)
        if beyond > 2 + length / 10:
            raise _BadOutlineError(
                f"lies {beyond:.0f} pixels outside the image of {width} x {height} pixels in {name}"
            )


def _from_runs(segmentation: dict[str, Any], height: int, width: int) -> NDArray[np.bool_]:
    # Not pycocotools: a damaged string makes it write outside its memory.
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list | tuple) or list(size) != [height, width]:
        raise _BadOutlineError(f"is of the size {size} and the image of {[height, width]}")
    if isinstance(counts, str | bytes):
        counts = _unpacked_runs(counts.encode() if isinstance(counts, str) else counts)
    try:
        runs = np.array(counts if isinstance(counts, list) else [-1], np.int64)
    except (TypeError, ValueError, OverflowError):
        runs = np.array([-1])
    total = height * width
    if runs.ndim != 1 or (runs < 0).any() or (runs > total).any() or runs.sum() != total:
        raise _BadOutlineError(f"has runs that do not make {total} pixels")
    # Runs of 0 and 1 by turns, down the columns.
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return inside.reshape((height, width), order="F")


def _unpacked_runs(packed: bytes) -> list[int]:
    """The runs of COCO's compressed string.

    Six bits a byte from 48 on: five of the number, lowest first, and one that says that more
    follow. From the fourth run on, the difference to the last but one is stored.
    """
    runs: list[int] = []
    number, shift = 0, 0
    for byte in packed:
        bits = byte - 48
        if not 0 <= bits < 64 or shift > 60:
            raise _BadOutlineError("has a string of runs with characters that none has")
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number, shift = 0, 0
    if shift:
        raise _BadOutlineError("has a string of runs that is cut off")
    return runs
