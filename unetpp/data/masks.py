"""What stored masks mean: from labels, channels and objects to planes.

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

from unetpp.data.files import Stored, finding
from unetpp.data.findings import BadFileError, Finding
from unetpp.data.labels import Labels, MaskRule

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
        BadFileError: values that are no labels by this rule.
    """
    if rule == "foreground":
        assert len(labels.names) == 1, "all that is above 0 is one class"
        inside, object_sizes = foreground_of(stored)
        return Mask(planes=inside[None].astype(np.uint8), object_sizes=object_sizes)
    if rule == "classes":
        return Mask(planes=_as_planes(_stored_values(stored, labels), labels, labels.values))
    if rule == "one-hot":
        return Mask(planes=_as_planes(_from_one_hot(stored, labels), labels))
    inside = _binary_channels(stored, len(labels.names))
    return Mask(planes=planes_of(inside, labels, stored.path))


# --- values


def foreground_of(stored: Stored) -> tuple[NDArray[np.bool_], tuple[int, ...] | None]:
    """Bool [*S]: where the label is above 0; and the size of each object where there are several.

    Raises:
        BadFileError: values that are no labels.
    """
    array = _one_channel(stored)
    if array.dtype == np.bool_:
        return array, None
    values, counts = _counted(array)
    if not _are_labels(values, stored):
        some = ", ".join(f"{value:g}" for value in _spread(values.tolist()))
        raise BadFileError(
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
        raise BadFileError(
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


def _stored_values(stored: Stored, labels: Labels) -> NDArray[np.uint8]:
    """Uint8 [*S] of 0 to the largest value of a class."""
    array = _one_channel(stored)
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    values, _ = _counted(array)
    if labels.largest_value == 1 and set(values.tolist()) <= {0, 255}:
        return (array > 0).astype(np.uint8)
    if stored.format == "jpg":
        raise BadFileError(
            "lossy-mask",
            stored.path,
            f"labels must be stored without loss, but `{stored.path}` is a jpg; save masks as png",
        )
    if not _are_whole(values):
        first = values[~np.isfinite(values) | (values != np.rint(values))][0]
        raise BadFileError(
            "labels-not-whole",
            stored.path,
            f"labels must be whole numbers, but `{stored.path}` has {first}; save masks as "
            "integers, without interpolation",
        )
    wrong = values[(values < 0) | (values > labels.largest_value)]
    if len(wrong):
        raise BadFileError("label-beyond-classes", stored.path, _beyond(stored, wrong, labels))
    return array.astype(np.uint8)


def _beyond(stored: Stored, wrong: NDArray[Any], labels: Labels) -> str:
    what = "regions" if labels.values else "classes"
    text = (
        f"labels must be 0 to {labels.largest_value} ({len(labels.names)} {what} and the "
        "background), but "
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
        raise BadFileError(
            "wrong-channels",
            path,
            f"the mask must have {num_channels} channels by its rule, but `{path}` has "
            f"{len(array)}; name the classes that it holds with --classes a,b",
        )
    if stored.format == "jpg":
        raise BadFileError(
            "lossy-mask",
            path,
            f"labels must be stored without loss, but `{path}` is a jpg; save masks as png",
        )
    for channel, plane in enumerate(array):
        top = 255 if plane.max() == 255 else 1
        wrong = (plane != 0) & (plane != top)
        if wrong.any():
            raise BadFileError(
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
        raise BadFileError(
            "not-one-hot",
            stored.path,
            f"in one-hot masks every pixel is in exactly one channel, but {num_wrong} pixels of "
            f"`{stored.path}` are in none or several; mend the mask, or read it as planes",
        )
    return inside.argmax(axis=0).astype(np.uint8)


def _as_planes(
    stored: NDArray[np.uint8], labels: Labels, values: tuple[tuple[int, ...], ...] = ()
) -> NDArray[np.uint8]:
    """[M, *S] from one value a pixel [*S]; without `values`, those of class k are k."""
    if labels.kind != "multilabel":
        return stored[None]
    values = values or tuple((k + 1,) for k in range(len(labels.names)))
    return np.stack([np.isin(stored, of_class) for of_class in values]).astype(np.uint8)


def planes_of(inside: NDArray[np.bool_], labels: Labels, path: Path) -> NDArray[np.uint8]:
    """[M, *S] from one plane a class, [K, *S].

    Raises:
        BadFileError: planes of classes that exclude each other overlap.
    """
    if labels.kind == "multilabel":
        return inside.astype(np.uint8)
    num_wrong = int((inside.sum(axis=0) > 1).sum())
    if num_wrong:
        raise BadFileError(
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
        BadFileError: values that are no labels.
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
