"""What stored masks mean: from labels, channels, objects and outlines to planes.

Shapes: C stored channels, K classes without the background, M planes (`Labels.num_planes`), *S the
axes of an image or a volume.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetpp.data.decoding import Stored, finding
from unetpp.data.findings import BadFile, Finding
from unetpp.data.labels import Labels, MaskRule
from unetpp.data.sources import Outlines

# Larger labels are counted by sorting: a bin for each would take too much memory.
_MOST_BINS = 2**20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mask:
    """A mask as it is fed.

    Attributes:
        planes: uint8 [M, *S], as in `RawCase`.
        object_sizes: pixels of each object, where the mask tells objects apart; else None.
        findings: warnings and notes.
    """

    planes: NDArray[np.uint8]
    object_sizes: tuple[int, ...] | None = None
    findings: tuple[Finding, ...] = ()


def mask_of(stored: Stored, labels: Labels, rule: MaskRule) -> Mask:
    """The mask that one file holds, read by `rule` (see `check_mask_rule`).

    Args:
        stored: the file.
        labels: what its values stand for; one class for "foreground".
        rule: how values or channels become classes.

    Raises:
        BadFile: values that are no labels by this rule.
    """
    if rule == "foreground":
        assert len(labels.names) == 1, "all that is above 0 is one class"
        inside, object_sizes = foreground_of(stored)
        return Mask(planes=inside[None].astype(np.uint8), object_sizes=object_sizes)
    if rule == "classes":
        return Mask(planes=_as_planes(_class_map(stored, labels), labels))
    if rule == "one-hot":
        return Mask(planes=_as_planes(_from_one_hot(stored, labels), labels))
    inside = _binary_channels(stored, len(labels.names))
    return Mask(planes=planes_of(inside, labels, stored.path))


# --- values


def foreground_of(stored: Stored) -> tuple[NDArray[np.bool_], tuple[int, ...] | None]:
    """Bool [*S]: where the label is above 0; and the size of each object where there are several.

    Raises:
        BadFile: values that are no labels.
    """
    array = _one_channel(stored)
    if array.dtype == np.bool_:
        return array, None
    values, counts = _counted(array)
    if not _are_labels(values, stored):
        some = ", ".join(f"{value:g}" for value in _spread(values.tolist()))
        raise BadFile(
            "lossy-mask",
            stored.path,
            "the values of a mask must be 0 and 1, 0 and 255, or labels without gaps (with 16 bits "
            f"any labels), but `{stored.path}` is a {stored.format} with {len(values)} values such "
            f"as {some}; save masks losslessly, without smoothing",
        )
    above = counts[values > 0]
    return array > 0, tuple(above.tolist()) if len(above) > 1 else None


def _one_channel(stored: Stored) -> NDArray[Any]:
    """[*S], of a mask whose channels are equal."""
    array = stored.array[:-1] if stored.has_alpha else stored.array
    if len(array) not in (1, 3) or (array[1:] != array[:1]).any():
        what = "its colours differ" if len(array) == 3 else f"it has {len(array)} channels"
        raise BadFile(
            "coloured-mask",
            stored.path,
            f"a mask must be grey, but `{stored.path}` is not: {what}; save labels, not colours",
        )
    return array[0]


def _counted(array: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The values that occur, ascending, and how often."""
    if array.dtype.kind == "f":
        whole = np.isfinite(array).all() and (array == np.rint(array)).all()
        if not whole or np.abs(array).max() >= _MOST_BINS:
            return np.unique(array, return_counts=True)
        array = array.astype(np.int64)
    if array.min() < 0 or array.max() >= _MOST_BINS:
        return np.unique(array, return_counts=True)
    counts = np.bincount(array.ravel())
    values = np.flatnonzero(counts)
    return values, counts[values]


def _are_labels(values: NDArray[Any], stored: Stored) -> bool:
    """Whether the sorted, unique `values` are those of a mask and not of a smoothed one."""
    if not _are_whole(values) or values[0] < 0:
        return False
    if set(values.tolist()) <= {0, 255}:
        return True
    if stored.format == "jpg":
        # A lossy black mask can be 0, 1, 2: no gap, and no label either.
        return False
    if stored.array.dtype.itemsize == 1 and stored.format != "nii":
        # All 256 values are a smooth edge, or labels that ran over.
        return values[0] <= 1 and values[-1] - values[0] == len(values) - 1 and len(values) < 256
    return True


def _are_whole(values: NDArray[Any]) -> bool:
    return bool(np.isfinite(values).all() and (values == np.rint(values)).all())


def _spread(values: list[float]) -> list[float]:
    """Up to five of the sorted `values`, first and last included."""
    return values if len(values) <= 5 else [values[k * (len(values) - 1) // 4] for k in range(5)]


# --- classes


def _class_map(stored: Stored, labels: Labels) -> NDArray[np.uint8]:
    """Uint8 [*S] of 0..K."""
    array, num_classes = _one_channel(stored), len(labels.names)
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    values, _ = _counted(array)
    if num_classes == 1 and set(values.tolist()) <= {0, 255}:
        return (array > 0).astype(np.uint8)
    if stored.format == "jpg":
        raise BadFile(
            "lossy-mask",
            stored.path,
            f"labels must be stored without loss, but `{stored.path}` is a jpg; save masks as png",
        )
    if not _are_whole(values):
        first = values[~np.isfinite(values) | (values != np.rint(values))][0]
        raise BadFile(
            "labels-not-whole",
            stored.path,
            f"labels must be whole numbers, but `{stored.path}` has {first}; save masks as "
            "integers, without interpolation",
        )
    wrong = values[(values < 0) | (values > num_classes)]
    if len(wrong):
        raise BadFile("label-beyond-classes", stored.path, _beyond(stored, wrong, labels))
    return array.astype(np.uint8)


def _beyond(stored: Stored, wrong: NDArray[Any], labels: Labels) -> str:
    num_classes = len(labels.names)
    text = (
        f"labels must be 0 to {num_classes} ({num_classes} classes and the background), but "
        f"`{stored.path}` has {int(wrong[0])}"
    )
    if wrong.tolist() == [255]:
        return (
            f"{text}, which looks like the label `void` of PASCAL VOC for pixels that nobody "
            "decided; set these to a class or to 0"
        )
    return f"{text}; name all classes with --classes a,b or mend the mask"


def _binary_channels(stored: Stored, num_channels: int) -> NDArray[np.bool_]:
    """Bool [C, *S]."""
    array, path = stored.array, stored.path
    if stored.has_alpha and len(array) == num_channels + 1:
        array = array[:-1]
    if len(array) != num_channels:
        raise BadFile(
            "wrong-channels",
            path,
            f"the mask must have {num_channels} channels by its rule, but `{path}` has "
            f"{len(array)}; name the classes that it holds with --classes a,b",
        )
    if stored.format == "jpg":
        raise BadFile(
            "lossy-mask",
            path,
            f"labels must be stored without loss, but `{path}` is a jpg; save masks as png",
        )
    for channel, plane in enumerate(array):
        top = 255 if plane.max() == 255 else 1
        wrong = (plane != 0) & (plane != top)
        if wrong.any():
            raise BadFile(
                "not-binary",
                path,
                f"a channel of a mask must be 0 and 1, or 0 and 255, but channel {channel} of "
                f"`{path}` has {plane[wrong][0]:g}; save masks losslessly, without smoothing",
            )
    return array != 0


def _from_one_hot(stored: Stored, labels: Labels) -> NDArray[np.uint8]:
    """Uint8 [*S] of 0..K, from channels of which the first is the background."""
    inside = _binary_channels(stored, len(labels.names) + 1)
    num_wrong = int((inside.sum(axis=0) != 1).sum())
    if num_wrong:
        raise BadFile(
            "not-one-hot",
            stored.path,
            f"in one-hot masks every pixel is in exactly one channel, but {num_wrong} pixels of "
            f"`{stored.path}` are in none or several; mend the mask, or read it as planes",
        )
    return inside.argmax(axis=0).astype(np.uint8)


def _as_planes(classes: NDArray[np.uint8], labels: Labels) -> NDArray[np.uint8]:
    """[M, *S] from one class a pixel [*S]."""
    if labels.kind != "multilabel":
        return classes[None]
    return np.stack([classes == k + 1 for k in range(len(labels.names))]).astype(np.uint8)


def planes_of(inside: NDArray[np.bool_], labels: Labels, path: Path) -> NDArray[np.uint8]:
    """[M, *S] from one plane a class, [K, *S].

    Raises:
        BadFile: planes of classes that exclude each other overlap.
    """
    if labels.kind == "multilabel":
        return inside.astype(np.uint8)
    num_wrong = int((inside.sum(axis=0) > 1).sum())
    if num_wrong:
        raise BadFile(
            "overlapping-classes",
            path,
            f"a pixel must be of one class, but {num_wrong} pixels of the case of `{path}` are of "
            "several; mend the masks, or let classes overlap with --multilabel",
        )
    number_K = np.arange(1, len(inside) + 1, dtype=np.uint8)
    return (inside * number_K.reshape(-1, *(1,) * (inside.ndim - 1))).max(axis=0)[None]


# --- objects


def union_of_objects(files: Iterable[Stored], shape: Sequence[int]) -> Mask:
    """The foreground of all `files` together, one object each.

    Args:
        files: masks of `shape`; taken one after the other, so that they need not all be held.
        shape: *S of the image.

    Raises:
        BadFile: values that are no labels.
    """
    covers = np.zeros(tuple(shape), np.uint16)
    sizes: list[int] = []
    findings: list[Finding] = []
    first: Path | None = None
    for stored in files:
        first = first or stored.path
        inside, _ = foreground_of(stored)
        covers += inside
        sizes.append(int(np.count_nonzero(inside)))
        if not sizes[-1]:
            text = f"an object must have pixels, but `{stored.path}` has none; remove the file"
            findings.append(finding("warning", "empty-object", stored.path, text))
    overlapping = int((covers > 1).sum())
    if overlapping:
        assert first is not None
        text = (
            f"{overlapping} pixels are in several of the {len(sizes)} object masks beside "
            f"`{first}`; they count once as foreground"
        )
        findings.append(finding("note", "overlapping-objects", first.parent, text))
    return Mask(
        planes=(covers > 0)[None].astype(np.uint8),
        object_sizes=tuple(sizes),
        findings=tuple(findings),
    )


# --- outlines of COCO


def draw_outlines(source: Outlines, labels: Labels) -> Mask:
    """The mask that COCO annotations describe; what is drawn later lies on top.

    Args:
        source: the objects, with classes from 1.
        labels: for classes that may overlap, none hides another.

    Raises:
        BadFile: a class that is not there, or an outline that cannot be drawn.
    """
    size = (source.height, source.width)
    planes = np.zeros((labels.num_planes, *size), np.uint8)
    sizes: list[int] = []
    findings: list[Finding] = []
    for number, (label, segmentation) in enumerate(source.objects):
        if not 1 <= label <= len(labels.names):
            raise BadFile(
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
        raise BadFile(
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
