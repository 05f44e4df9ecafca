"""One case of a listing, decoded and checked: where the files of all layouts become arrays.

Shapes: C channels, M planes of the mask, *S the two axes of an image or the three of a volume.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unetpp.data.cases import RawCase
from unetpp.data.decoding import decode_cell, decode_picture
from unetpp.data.files import Stored, finding, is_nifti
from unetpp.data.findings import BadFileError, Finding
from unetpp.data.labels import Labels, MaskRule
from unetpp.data.masks import (
    Mask,
    foreground_of,
    mask_of,
    planes_of,
    union_of_objects,
)
from unetpp.data.outlines import draw_outlines
from unetpp.data.sources import (
    CaseFiles,
    ClassMasks,
    MaskSource,
    ObjectMasks,
    Pixels,
    TableCell,
)

# Two affines that differ by less, in millimetres, are one and the same.
_AFFINE_TOLERANCE = 1e-3


def read_case(case: CaseFiles, *, labels: Labels, mask_rule: MaskRule) -> RawCase:
    """The case at its stored size.

    Pictures of unsigned integers of 8 and 16 bits are scaled to 0..1 by the range of their type.
    Other pictures and all volumes keep their values, as the scale of CT does.

    Args:
        case: its files.
        labels: what a mask says.
        mask_rule: how stored values become classes.

    Raises:
        BadFileError: a file that cannot be used, or files that do not fit each other.
    """
    parts: list[Stored] = []
    for source in case.image:
        part = _decoded(source, as_labels=False)
        if parts:
            _check_fit(parts[0], part)
        parts.append(part)
    image, findings = _stacked(parts)
    mask = None
    if case.mask is not None:
        mask = _read_mask(case.mask, parts[0], labels, mask_rule)
        findings = (*findings, *mask.findings)
    first = parts[0]
    return RawCase(
        id=case.id,
        image=image,
        mask=None if mask is None else np.ascontiguousarray(mask.planes),
        spacing=first.spacing,
        affine=first.affine,
        object_sizes=None if mask is None else mask.object_sizes,
        stored=_in_words(parts, len(image)),
        findings=findings,
    )


def _decoded(source: Pixels | TableCell, *, as_labels: bool) -> Stored:
    if isinstance(source, TableCell):
        return decode_cell(source, as_labels=as_labels)
    if is_nifti(source.path):
        # nibabel is not loaded for those who have pictures only.
        from unetpp.data.nifti import read_nifti

        return read_nifti(source, as_labels=as_labels)
    return decode_picture(source, as_labels=as_labels)


def _in_words(parts: list[Stored], num_channels: int) -> str:
    types = " and ".join(dict.fromkeys(str(part.array.dtype) for part in parts))
    return f"{types}, {num_channels} channel{'s' if num_channels > 1 else ''}"


# --- images


def _stacked(parts: list[Stored]) -> tuple[NDArray[np.float32], tuple[Finding, ...]]:
    """Float32 [C, *S] of all parts, and what is to be said of them."""
    images: list[NDArray[np.float32]] = []
    findings: list[Finding] = []
    for part in parts:
        findings += part.findings
        array = part.array
        if part.has_alpha:
            findings.append(_alpha_dropped(part))
            array = array[:-1]
        findings += _range_findings(array, part)
        images.append(_scaled(array, part))
    image = images[0] if len(images) == 1 else np.concatenate(images)
    return image, tuple(findings)


def _alpha_dropped(part: Stored) -> Finding:
    alpha = part.array[-1]
    if alpha.min() == alpha.max():
        text = f"transparency is not fed, and that of `{part.path}` is {alpha.min()} everywhere"
        return finding("note", "alpha-dropped", part.path, text)
    text = (
        f"transparency is not fed, but that of `{part.path}` differs between pixels; lay the image "
        "on a background if it matters"
    )
    return finding("warning", "alpha-dropped", part.path, text)


def _range_findings(array: NDArray[np.generic], part: Stored) -> list[Finding]:
    """What the smallest and the largest value say.

    Raises:
        BadFileError: they are not finite, or no numbers.
    """
    path = part.path
    if array.dtype.kind not in "biuf":
        raise BadFileError(
            "unsupported-type",
            path,
            f"pixels must be integers or floats, but `{path}` has {array.dtype}; convert it",
        )
    low, high = array.min(), array.max()
    largest = float(np.finfo(np.float32).max)
    if not (-largest <= float(low) and float(high) <= largest):
        raise BadFileError(
            "not-finite",
            path,
            f"intensities must be finite, but `{path}` has NaN or infinity; mend it",
        )
    if low == high:
        text = f"an image should show something, but `{path}` is {low} everywhere; check the file"
        return [finding("warning", "constant-image", path, text)]
    if array.dtype != np.uint16 or part.format == "nii" or high > 4095:
        return []
    if high <= 255:
        text = (
            f"16 bits should be used, but the largest value of `{path}` is {high}, so that it is "
            "fed as nearly black; save it with 8 bits if that is what it holds"
        )
        return [finding("warning", "sixteen-bit-holds-eight", path, text)]
    text = f"`{path}` uses 12 of its 16 bits (up to {high}), so that it is fed as 0 to 1/16"
    return [finding("note", "twelve-bit-range", path, text)]


def _scaled(array: NDArray[np.generic], part: Stored) -> NDArray[np.float32]:
    image = np.ascontiguousarray(array).astype(np.float32)
    if part.format != "nii" and array.dtype in (np.uint8, np.uint16):
        image /= np.float32(np.iinfo(array.dtype).max)
    return image


# --- masks


def _read_mask(source: MaskSource, image: Stored, labels: Labels, rule: MaskRule) -> Mask:
    shape = image.array.shape[1:]
    if isinstance(source, Pixels | TableCell):
        stored = _decoded(source, as_labels=True)
        _check_fit(image, stored)
        mask = mask_of(stored, labels, rule)
        return dataclasses.replace(mask, findings=(*stored.findings, *mask.findings))
    if isinstance(source, ObjectMasks):
        return union_of_objects(_fitting_objects(source, image), shape)
    if isinstance(source, ClassMasks):
        return _read_class_masks(source, image, labels)
    _check_size(image.path, shape, source.path, (source.height, source.width))
    return draw_outlines(source, labels)


def _fitting_objects(source: ObjectMasks, image: Stored) -> Iterator[Stored]:
    for path in source.paths:
        stored = _decoded(Pixels(path=path), as_labels=True)
        _check_fit(image, stored)
        yield stored


def _read_class_masks(source: ClassMasks, image: Stored, labels: Labels) -> Mask:
    assert len(source.files) == len(labels.names)
    inside = np.zeros((len(source.files), *image.array.shape[1:]), np.bool_)
    findings: list[Finding] = []
    path = image.path
    for k, pixels in enumerate(source.files):
        if pixels is None:
            continue
        stored = _decoded(pixels, as_labels=True)
        _check_fit(image, stored)
        inside[k], _ = foreground_of(stored)
        findings += stored.findings
        path = stored.path
    return Mask(planes=planes_of(inside, labels, path), findings=tuple(findings))


# --- what must fit


def _check_fit(first: Stored, other: Stored) -> None:
    _check_size(first.path, first.array.shape[1:], other.path, other.array.shape[1:])
    if first.affine is None or other.affine is None:
        return
    difference = np.abs(np.subtract(first.affine, other.affine))
    if difference.max() > _AFFINE_TOLERANCE:
        raise BadFileError(
            "affine-mismatch", other.path, _affine_text(first, other, difference.max())
        )


def _affine_text(first: Stored, other: Stored, difference: float) -> str:
    import nibabel

    codes = ["".join(map(str, nibabel.aff2axcodes(np.array(s.affine)))) for s in (first, other)]
    law = "the volumes of a case must lie in one place"
    if codes[0] != codes[1]:
        return (
            f"{law}, but `{first.path}` is oriented {codes[0]} and `{other.path}` {codes[1]}; "
            "bring both into one orientation"
        )
    return (
        f"{law}, but the affines of `{first.path}` and `{other.path}` differ by up to "
        f"{difference:.4g} mm; resample one, or copy the header if only that is wrong"
    )


def _check_size(
    first: Path, first_shape: tuple[int, ...], other: Path, other_shape: tuple[int, ...]
) -> None:
    if first_shape == other_shape:
        return
    text = (
        f"the files of a case must have one size, but `{first}` is {_size_text(first_shape)} and "
        f"`{other}` is {_size_text(other_shape)}"
    )
    if sorted(first_shape) == sorted(other_shape):
        text = f"{text}, as if it were transposed or turned by 90 degrees; turn it back"
        raise BadFileError("transposed-mask", other, text)
    raise BadFileError("size-mismatch", other, f"{text}; mend one or remove the case")


def _size_text(shape: tuple[int, ...]) -> str:
    if len(shape) == 2:
        return f"{shape[1]} x {shape[0]} pixels"
    return f"{' x '.join(map(str, shape))} voxels"
